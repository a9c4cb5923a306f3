package agent

import (
	"reflect"
	"testing"

	"github.com/weft-sdn/weft/internal/table"
)

// Every table of the switch is compared: a Set that differs in any of them differs,
// whether the kernel lacks a row, has another, or has one too many.
func TestVerifySeesEveryTable(t *testing.T) {
	for i := range reflect.TypeFor[table.Set]().NumField() {
		one, none := table.NewSet(), table.NewSet()
		name := reflect.TypeFor[table.Set]().Field(i).Name
		if name == "Groups" {
			continue // learned, and no policy to compare with
		}
		field := reflect.ValueOf(&one).Elem().Field(i)
		switch field.Kind() {
		case reflect.Map:
			field.SetMapIndex(reflect.Zero(field.Type().Key()), reflect.Zero(field.Type().Elem()))
		case reflect.Struct:
			field.Field(0).SetUint(7)
		default:
			t.Fatalf("%s is a %s: teach this test", name, field.Kind())
		}
		if len(differ(one, none, true)) == 0 {
			t.Errorf("%s: nobody sees that the kernel lacks a row", name)
		}
		if len(differ(none, one, true)) == 0 {
			t.Errorf("%s: nobody sees a row too many", name)
		}
		if got := differ(one, one, true); len(got) != 0 {
			t.Errorf("%s: the same differs: %v", name, got)
		}
	}
}
