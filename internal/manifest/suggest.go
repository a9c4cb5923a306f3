package manifest

import (
	"fmt"
	"strings"
)

// Suggest finds the candidate that somebody who wrote word may have meant, or "".
func Suggest(word string, candidates []string) string {
	best, distance := "", len(word)/3+1
	for _, c := range candidates {
		if plain(word) == plain(c) {
			return c
		}
		if d := edits(strings.ToLower(word), strings.ToLower(c)); d <= distance && d < len(c) {
			if best == "" || d < distance {
				best, distance = c, d
			}
		}
	}
	return best
}

// plain removes what people vary without noticing: case, dashes, underscores.
func plain(s string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s))
}

// maxWord bounds the cost of edits, which grows with the product of the lengths.
const maxWord = 64

// edits counts the insertions, deletions and replacements from a to b.
func edits(a, b string) int {
	if len(a) > maxWord || len(b) > maxWord {
		return maxWord
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func didYouMean(word string, candidates []string) string {
	if s := Suggest(word, candidates); s != "" {
		return fmt.Sprintf(", did you mean %q?", s)
	}
	return ""
}

// hint suggests one candidate, or lists them all.
func hint(word string, candidates []string) string {
	if s := didYouMean(word, candidates); s != "" {
		return s
	}
	if len(candidates) == 0 {
		return "; none is known here"
	}
	return "; known here: " + strings.Join(candidates, ", ")
}
