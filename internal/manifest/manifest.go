// Package manifest turns the YAML or JSON that people write into resources of
// the API, and back.
//
// Invariants: strict: a field that the API does not know is an error, never
// ignored; every finding names document, line and path; what Format writes,
// Parse reads back to the same resource but for its status, which only the
// system writes. The field names and types come from the protobuf descriptors
// alone, so that a new resource field needs no change here.
//
// It must never talk to a server, and never fill in defaults: that is the
// server's admission.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// MaxSize bounds what Parse reads, in bytes.
const MaxSize = 64 << 20

// maxFindings bounds the errors that one Parse reports.
const maxFindings = 100

// Error is one finding in a manifest.
type Error struct {
	Document int    // from 1
	Line     int    // from 1, in the whole input; 0 when unknown
	Path     string // "spec.addresses[0]", or "" for the document itself
	Message  string // what is wrong and what to do
}

func (e Error) Error() string {
	where := fmt.Sprintf("document %d", e.Document)
	if e.Line > 0 {
		where += fmt.Sprintf(", line %d", e.Line)
	}
	if e.Path != "" {
		where += ": " + e.Path
	}
	return where + ": " + e.Message
}

// Errors are all findings of one Parse, in order of appearance.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Parse reads every document of data, YAML or JSON, separated by "---". Empty
// documents are skipped. The error is an Errors when the content is at fault.
func Parse(data []byte) ([]*weftv1.Resource, error) { return ParseFile("", data) }

// ParseFile is Parse of what stands in a file: rules of AccessLists get the place where
// they are written as their source.
func ParseFile(file string, data []byte) ([]*weftv1.Resource, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("manifest of %d bytes is larger than %d: split it", len(data), MaxSize)
	}
	var resources []*weftv1.Resource
	var found Errors
	reader := yaml.NewDecoder(bytes.NewReader(data))
	for doc := 1; ; doc++ {
		var root yaml.Node
		err := reader.Decode(&root)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			// The reader cannot find the next document after a syntax error.
			found = append(found, syntaxError(doc, err))
			break
		}
		d := decoder{file: file, document: doc, found: found}
		if r := d.resource(&root); r != nil {
			resources = append(resources, r)
		}
		found = d.found
	}
	if len(found) > maxFindings {
		found = found[:maxFindings]
	}
	if len(found) > 0 {
		return nil, found
	}
	return resources, nil
}

// Read parses everything that r yields.
func Read(r io.Reader) ([]*weftv1.Resource, error) { return ReadFile("", r) }

// ReadFile is Read of the file that r is.
func ReadFile(file string, r io.Reader) ([]*weftv1.Resource, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return ParseFile(file, data)
}

// syntaxError turns "yaml: line 3: text" into a finding.
func syntaxError(doc int, err error) Error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
		_, text, _ = strings.Cut(text, ": ")
	}
	return Error{Document: doc, Line: line, Message: "not YAML or JSON: " + text}
}
