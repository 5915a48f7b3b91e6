package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path, ok := os.LookupEnv(fileVariable); ok {
		if err := syncOnce(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func TestVerify_AWrongCountIsAnError(t *testing.T) {
	for _, c := range []struct {
		answer string
		sink   bool
		right  bool
	}{
		{`{"events":7,"unique":7,"out_of_order":0,"dead":0}`, true, true},
		{`{"events":6,"unique":6,"out_of_order":0,"dead":0}`, true, false},
		{`{"events":8,"unique":7,"out_of_order":0,"dead":0}`, true, false},
		{`{"events":7,"unique":6,"out_of_order":0,"dead":0}`, true, false},
		{`{"events":7,"unique":7,"out_of_order":1,"dead":0}`, true, false},
		{`{"events":7,"unique":7,"out_of_order":0,"dead":1}`, true, false},
		{`{"events":7}`, true, false},
		{`{"events":7}`, false, true},
		{`{"events":6}`, false, false},
		{`{"events":7,"transactions":2}`, false, false},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.answer) }))
		child := &child{target: &target{sink: c.sink}, addr: strings.TrimPrefix(server.URL, "http://")}
		err := child.verify(context.Background(), 7, 2)
		server.Close()
		if (err == nil) != c.right {
			t.Errorf("%s of a sink: %t: error %v", c.answer, c.sink, err)
		}
	}
}

func TestVerify_OfTheFile_CountsTransactions(t *testing.T) {
	for answer, right := range map[string]bool{`{"transactions":2}`: true, `{"transactions":1}`: false, `{"events":7}`: false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
		child := &child{target: &target{keeps: true}, addr: strings.TrimPrefix(server.URL, "http://")}
		err := child.verify(context.Background(), 7, 2)
		server.Close()
		if (err == nil) != right {
			t.Errorf("%s: error %v", answer, err)
		}
	}
}

func TestMedian_IsTheMiddle(t *testing.T) {
	itself := func(v float64) float64 { return v }
	for want, values := range map[float64][]float64{2: {3, 1, 2}, 1.5: {2, 1}, 5: {5}} {
		if got := median(values, itself); got != want {
			t.Errorf("%v: %g", values, got)
		}
	}
	if s := number("%.1f", median(nil, itself)); s != "-" {
		t.Errorf("of nothing: %s", s)
	}
}
