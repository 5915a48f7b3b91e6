//go:build failpoints

package failpoint_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/trestle-bridge/trestle/internal/failpoint"
)

const childVariable = "FAILPOINT_TEST_CHILD"

// The test binary is its own child, which takes three steps and says so.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	for i := range 3 {
		failpoint.Before("step")
		fmt.Println("step", i+1)
		failpoint.After("step")
	}
}

func TestFailpoint_CountsFromAFile_PassesBeforeTheFileIsThere(t *testing.T) {
	file := t.TempDir() + "/begun"
	t.Setenv(failpoint.From, file)
	if out, err := child("before step"); err != nil || strings.Count(out, "step") != 3 {
		t.Errorf("without the file: %v\n%s", err, out)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := child("before step:2"); err == nil || strings.Count(out, "step") != 1 {
		t.Errorf("with the file: %v\n%s", err, out)
	}
}

func child(point string) (out string, err error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=1", failpoint.Variable+"="+point)
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	err = cmd.Run()
	return both.String(), err
}

func TestFailpoint_AtTheNthPassing_EndsTheProcessAsKillMinusNine(t *testing.T) {
	for point, want := range map[string]string{
		"before step":   "",
		"after step":    "step 1\n",
		"before step:3": "step 1\nstep 2\n",
		"after step:2":  "step 1\nstep 2\n",
	} {
		out, err := child(point)
		var exit *exec.ExitError
		if out != want || !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("%s: %q and %v", point, out, err)
		}
	}
}

func TestFailpoint_NotPassed_ChangesNothing(t *testing.T) {
	for _, point := range []string{"", "before step:4", "before another step"} {
		if out, err := child(point); err != nil || out != "step 1\nstep 2\nstep 3\n" {
			t.Errorf("%q: %q and %v", point, out, err)
		}
	}
}

func TestFailpoint_MistakenVariable_IsNamed(t *testing.T) {
	for _, point := range []string{"step", "before ", "before step:0", "before step:x"} {
		out, err := child(point)
		if err == nil || !strings.Contains(out, "FAILPOINT") || strings.Contains(out, "step 1") {
			t.Errorf("%q: %q and %v", point, out, err)
		}
	}
}
