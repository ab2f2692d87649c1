// Gopeer is the Go side of the benchmark suite, and its load generator.
//
//	gopeer version
//	gopeer micro CASE OPERATIONS
//	gopeer echo PORT
//	gopeer load PORT CONNECTIONS SIZE SECONDS SERVER_PID
//	gopeer latency PORT CONNECTIONS RATE SECONDS COMMAND
//
// Each prints its results as lines of "name<TAB>value". How many processors the
// scheduler gets comes from the environment (GOMAXPROCS), as for any Go program.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const usage = `usage: gopeer version
       gopeer micro CASE OPERATIONS
       gopeer echo PORT
       gopeer load PORT CONNECTIONS SIZE SECONDS SERVER_PID
       gopeer latency PORT CONNECTIONS RATE SECONDS COMMAND`

func emit(name string, value float64) {
	fmt.Printf("%s\t%.3f\n", name, value)
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "gopeer: "+format+"\n", arguments...)
	os.Exit(1)
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil || value < 1 {
		fail("%q is not a positive number", text)
	}
	return value
}

func seconds(text string) time.Duration {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || value <= 0 {
		fail("%q is not a positive number of seconds", text)
	}
	return time.Duration(value * float64(time.Second))
}

func main() {
	arguments := os.Args[1:]
	if len(arguments) == 0 {
		fail("%s", usage)
	}
	counts := map[string]int{"version": 1, "micro": 3, "echo": 2, "load": 6, "latency": 6}
	if counts[arguments[0]] != len(arguments) {
		fail("%s", usage)
	}
	switch arguments[0] {
	case "version":
		fmt.Println(strings.TrimPrefix(runtime.Version(), "go"))
	case "micro":
		micro(arguments[1], number(arguments[2]))
	case "echo":
		serveEcho(number(arguments[1]))
	case "load":
		runLoad(number(arguments[1]), number(arguments[2]), number(arguments[3]),
			seconds(arguments[4]), number(arguments[5]))
	case "latency":
		runLatency(number(arguments[1]), number(arguments[2]), number(arguments[3]),
			seconds(arguments[4]), arguments[5])
	}
}
