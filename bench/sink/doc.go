// Command sink is an appservice with Trestle's real intake, lanes and store, and a handler that counts. It is what
// measurements and kill tests drive.
//
//	go run ./bench/sink -listen 127.0.0.1:9100 -hs-token T -db FILE
//
// FILE is a path, sqlite:PATH or postgres://… . On the same listener as the homeserver's requests:
//
//	GET /count    {"events":N,"unique":M,"out_of_order":K,"dead":D}, counted in the store, so that it survives a kill
//	GET /stats    {"handled":N,…}: how far this process is, and where its time goes; cheap, not durable
//	GET /healthz  200 once transactions are taken
//	POST /release with -hold: the handlers, which wait until then, go on
//	POST /collect gives memory that is not used back to the system
//	GET /debug/pprof/…  with -pprof
//
// events is how many times a handler ended, unique how many different event IDs it was given, dead how many dead letters
// there are. out_of_order counts the events whose content.n, a counter that the sender keeps for each room, is not
// greater than that of the event handled before in the same room. Without loss, doubling or disorder events and unique
// are what was acknowledged, and the other two are 0.
//
// With -each the handler writes a row for every event, and not one for those of a lane that share a commit.
//
// SIGTERM drains: what is under way is finished, the rest waits in the store for the next start.
package main
