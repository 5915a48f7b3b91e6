package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMutant_PlaceInTheCode_MustBeThereOnce(t *testing.T) {
	m := mutant{file: "f.go", old: "if a {", new: "if false {"}
	if got, err := m.apply("x\nif a {\n}\n"); err != nil || got != "x\nif false {\n}\n" {
		t.Errorf("%q, %v", got, err)
	}
	for _, text := range []string{"", "if b {", "if a { if a {"} {
		if _, err := m.apply(text); err == nil || !strings.Contains(err.Error(), "f.go") {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

func TestPattern_MatchesOneTestOnly(t *testing.T) {
	if got := pattern("TestStore/Sub_Test"); got != "^TestStore$/^Sub_Test$" {
		t.Error(got)
	}
}

func TestMutants_EachChangesSomethingAndHasAName(t *testing.T) {
	names := map[string]bool{}
	for _, m := range slices.Concat(mutants, simulated, encrypted) {
		if m.old == m.new || m.name == "" || names[m.name] {
			t.Errorf("%+v", m)
		}
		names[m.name] = true
	}
	for _, name := range fundamental {
		if !names[name] {
			t.Errorf("there is no mutant %q", name)
		}
	}
}

// Who changes a guard's line hears of it at once, and not when the mutants are next run.
func TestMutants_EachPlace_IsInTheCodeOnce(t *testing.T) {
	for _, m := range slices.Concat(mutants, simulated, encrypted) {
		text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(m.file)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.apply(string(text)); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}
