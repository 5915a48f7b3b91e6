package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/payload"
)

// findNginx gives the program that is installed here, or the one that e2e/install.sh has unpacked.
func findNginx() (string, error) {
	if path, err := exec.LookPath("nginx"); err == nil {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "."
	}
	root := cmp.Or(os.Getenv("TRESTLE_NGINX_ROOT"), filepath.Join(cache, "trestle", "nginx"))
	for _, path := range []string{"/usr/sbin/nginx", filepath.Join(root, "usr/sbin/nginx")} {
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errors.New("there is no nginx: install it, or run e2e/install.sh nginx")
}

// nginxConfig is what an administrator would tune it to: connections to the upstream are kept, nothing is written to a log or
// to files on the way, and the kernel sends what is on disk. %[1]s is the user line, %[2]s the folder, %[3]s the upstream,
// %[4]s where it listens, %[5]d the processes.
const nginxConfig = `daemon off;
%[1]s
worker_processes %[5]d;
pid %[2]s/nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000;
	default_type image/png;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	upstream media { server %[3]s; keepalive 32; }
	server {
		listen %[4]s;
		location /files/ { alias %[2]s/files/; }
		location /_matrix/ {
			proxy_pass http://media;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_max_temp_file_size 0;
		}
	}
}
`

// startNginx starts one that passes on what the upstream has, and has the files of these sizes itself.
func (b *bench) startNginx(ctx context.Context, program, upstream string, sizes []int64) (_ *child, err error) {
	dir, err := filepath.Abs(filepath.Join(b.dir, "nginx"))
	if err != nil {
		return nil, err
	}
	if err = os.MkdirAll(filepath.Join(dir, "files"), 0o700); err != nil {
		return nil, err
	}
	for _, size := range sizes {
		if err = writePayload(filepath.Join(dir, "files", plainName(size)), size); err != nil {
			return nil, fmt.Errorf("write a file for nginx: %w", err)
		}
	}
	// nginx cannot be asked which port it got.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := free.Addr().String()
	if err = free.Close(); err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // its own user may not read the folder
	}
	config := filepath.Join(dir, "nginx.conf")
	if err = os.WriteFile(config, fmt.Appendf(nil, nginxConfig, user, dir, upstream, addr, runtime.NumCPU()), 0o600); err != nil {
		return nil, err
	}
	c := &child{target: &target{name: "nginx"}, dir: dir, addr: addr, ended: make(chan error, 1)}
	c.cmd = exec.Command(program, "-e", "stderr", "-p", dir, "-c", config)
	c.cmd.Stderr = os.Stderr
	if root, unpacked := strings.CutSuffix(program, "/usr/sbin/nginx"); unpacked && root != "" {
		c.cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libraries(root))
	}
	if err = c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { c.ended <- c.cmd.Wait() }()
	if err = c.reachable(ctx); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// reachable waits until somebody listens.
func (c *child) reachable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupWithin)
	defer cancel()
	for {
		conn, err := net.Dial("tcp", c.addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case end := <-c.ended:
			c.ended <- end
			return fmt.Errorf("it ended: %w", end)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// libraries are the folders with what a program that is only unpacked was built for.
func libraries(root string) string {
	var dirs []string
	for _, pattern := range []string{"lib/*-linux-*", "usr/lib/*-linux-*"} {
		found, _ := filepath.Glob(filepath.Join(root, pattern)) // the pattern is a good one
		dirs = append(dirs, found...)
	}
	return strings.Join(dirs, ":")
}

func writePayload(path string, size int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(payload.Write(file, size), file.Close())
}
