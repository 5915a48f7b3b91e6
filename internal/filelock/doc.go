// Package filelock makes sure that one process at a time holds a file. The system gives a lock back when its process ends, however
// it ends. The file itself must stay: deleting it would let two processes hold two files of one name.
package filelock
