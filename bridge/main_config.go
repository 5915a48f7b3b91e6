package bridge

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
)

// configCommand writes the commented configuration. It may come to hold secrets, so only its owner can read it.
func (p *program) configCommand(f *flag.FlagSet) func() int {
	toStdout := f.Bool("print", false, "print it instead of writing it")
	out := f.String("out", "", "write to `FILE`: the same as -config")
	return func() int {
		text := ExampleConfig(p.network)
		p.config = cmp.Or(*out, p.config)
		if *toStdout {
			if _, err := p.stdout.Write(text); err != nil {
				fmt.Fprintln(p.stderr, "printing the configuration:", err)
				return exitFailed
			}
			return exitOK
		}
		if err := writeNew(p.config, text); err != nil {
			fmt.Fprintln(p.stderr, "writing the configuration:", err)
			if errors.Is(err, fs.ErrExist) {
				fmt.Fprintln(p.stderr, "it is left as it is; name another file with -out, or use -print")
			}
			return exitFailed
		}
		fmt.Fprintf(p.stdout, "Wrote %s. Fill in what has example.org in it; then: %s registration -config %s\n", p.config, programName(), p.config)
		return exitOK
	}
}

// writeNew writes a file that must not be there yet.
func writeNew(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
