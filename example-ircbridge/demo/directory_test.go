package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestDirectory_WithFilesThatNoDemoMade_IsRefused_AndLeftAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := takeDirectory(dir)
	if err == nil || !strings.Contains(err.Error(), "config.yaml") || !strings.Contains(err.Error(), "-data") {
		t.Errorf("%v", err)
	}
	if data, err := os.ReadFile(file); string(data) != "mine" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestDirectory_OfAnEarlierDemo_IsEmptied(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	mark, err := takeDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "bridge.db")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" {
		if _, err := takeDirectory(dir); err == nil || !strings.Contains(err.Error(), "another demo") {
			t.Errorf("%v", err)
		}
	}
	if err := mark.Close(); err != nil {
		t.Fatal(err)
	}
	mark, err = takeDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer mark.Close()
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the old database is there still: %v", err)
	}
}

func TestArguments_StrayOnes_AreAMistake(t *testing.T) {
	if _, err := parse([]string{"once"}); err == nil || !strings.Contains(err.Error(), `"once"`) {
		t.Errorf("%v", err)
	}
	if o, err := parse([]string{"-once", "-data", "x"}); err != nil || !o.once || o.data != "x" {
		t.Errorf("%+v, %v", o, err)
	}
}
