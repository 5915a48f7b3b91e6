// Package simulation has a test in which one seed drives a whole world within the process: people on Matrix and on a network,
// the homeserver, the bridge, the clock, and what goes wrong. Requests are dropped, delayed, refused, answered to nobody;
// commits fail; the bridge dies at a commit, and the next one begins with what was durable then.
//
//	go test -tags goolm,failpoints -count=1 -v ./bench/simulation                        # 200 seeds
//	SIM_SEEDS=1000 go test -tags goolm,failpoints -count=1 -v ./bench/simulation
//	SIM_SEED=17 go test -tags goolm,failpoints -count=1 -v ./bench/simulation            # one again, with its log
//
// Everything runs in a bubble of testing/synctest, so that hours of waiting take none. Every choice is made by the seed and by
// what it is about, not by when it is asked for; there is one processor, and randomness is the seed's too. So a seed does the
// same again but where the runtime chooses between goroutines, or timers of one moment. docs/reliability.md says what is checked.
package simulation
