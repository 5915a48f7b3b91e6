// Command mutants takes guards of the intake and of the store out of the code, one at a time, and sees whether a test
// notices. From the root of the module:
//
//	go run ./internal/mutants          # all of them, or those whose names contain an argument
//	go run ./internal/mutants -short   # the five on which the promise stands
//
// Some guards are tried twice: by a test of their own, and by the simulation (bench/simulation), which knows of none of them.
//
// Nothing in the tree is changed: each package's tests are compiled with the mutated file in the place of the real one
// (go build -overlay). A mutant is killed when its test fails with it and passes without it. The program prints a table and
// ends with status 1 when a mutant survives, when its place in the code is no longer found, or when its test does not
// pass or is not run without it.
package main
