// Command file is what an intake over HTTP cannot beat on a machine: it reads the body of each request, writes it to a
// preallocated file, has it made durable, and answers {}. It looks into nothing and keeps no order.
//
// GET /count says how many bodies were written. It is driven by bench.
package main
