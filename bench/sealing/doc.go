// Command sealing measures how many messages a second are encrypted with Megolm and stored: the step of the ratchet is on disk
// before the message may leave. It measures the crypto package of the framework, with a row of the store in each commit as the
// outbox has one, beside mautrix-go's own machine with its SQL store on a SQLite file of its own, as its cryptohelper has it,
// with the same durability.
//
//	go run -tags goolm ./bench/sealing -rooms 50 -seconds 2 -rounds 3
//
// Each room encrypts one message after the other, all rooms at once. Afterwards the messages are counted from the stores. The
// answer is a line of JSON. Without the tag goolm it says that there is nothing to measure.
package main
