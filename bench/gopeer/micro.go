package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// works are the cases that run as often as asked.
var works = map[string]func(n int){
	"yield2":    func(n int) { yield(2, n) },
	"yield1000": func(n int) { yield(1000, n) },
	"pingpong":  pingpong,
	"buffered":  buffered,
	"spawn":     spawn,
	"select4":   select4,
	"mutex":     mutex,
	"contended": contended,
	"cond":      cond,
	"semaphore": semaphore,
	"context":   cancelContexts,
	"timeout":   timeOutContexts,
	"timer":     stopTimers,
	"scope":     scopes,
	"storm":     storm,
	"pairs":     pairs,
	"hot":       hot,
	"selects":   selects,
	"fanout":    fanout,
	"norms":     norms,
}

// reports are the cases that say themselves how they went.
var reports = map[string]func(n int){
	"sieve":   sieve,
	"parked":  parked,
	"timers":  timers,
	"speedup": speedup,
	"preempt": preempt,
	"contest": contest, // one process of preempt
}

func micro(name string, n int) {
	if report, known := reports[name]; known {
		report(n)
		return
	}
	work, known := works[name]
	if !known {
		fail("unknown case %q", name)
	}
	if name == "spawn" {
		emit("cold_ns", perOperation(work, n))
	} else {
		work(n / 10)
	}
	sum.Store(0)
	emit("ns", perOperation(work, n))
	if sum.Load() != 0 {
		emit("sum", float64(sum.Load()))
	}
}

// perOperation runs n operations and returns nanoseconds for one.
func perOperation(work func(n int), n int) float64 {
	start := time.Now()
	work(n)
	return float64(time.Since(start)) / float64(n)
}

func yield(tasks, n int) {
	var workers sync.WaitGroup
	workers.Add(tasks)
	for range tasks {
		go func() {
			for range n / tasks {
				runtime.Gosched()
			}
			workers.Done()
		}()
	}
	workers.Wait()
}

// pingpong sends n messages: n/2 there, n/2 back.
func pingpong(n int) {
	there, back := make(chan int), make(chan int)
	go func() {
		for range n / 2 {
			back <- <-there
		}
	}()
	for i := range n / 2 {
		there <- i
		<-back
	}
}

func buffered(n int) {
	messages := make(chan int, 128)
	go func() {
		for i := range n {
			messages <- i
		}
		close(messages)
	}()
	for range messages {
	}
}

func spawn(n int) {
	var tasks sync.WaitGroup
	tasks.Add(n)
	for range n {
		go func() { tasks.Done() }()
	}
	tasks.Wait()
}

func select4(n int) {
	var sources [4]chan int
	for i := range sources {
		sources[i] = make(chan int)
		go func() {
			for j := range n / 4 {
				sources[i] <- j
			}
		}()
	}
	for range n / 4 * 4 {
		select {
		case <-sources[0]:
		case <-sources[1]:
		case <-sources[2]:
		case <-sources[3]:
		}
	}
}

// sieve finds the n-th prime with a chain of filters, a goroutine for each prime.
func sieve(n int) {
	start := time.Now()
	numbers := make(chan int)
	go func(out chan<- int) {
		for i := 2; ; i++ {
			out <- i
		}
	}(numbers)
	var prime int
	for range n {
		prime = <-numbers
		survivors := make(chan int)
		go filter(numbers, survivors, prime)
		numbers = survivors
	}
	emit("ms", float64(time.Since(start))/1e6)
	if n == 1000 && prime != 7919 {
		fail("the 1000th prime is 7919, not %d", prime)
	}
}

func filter(in <-chan int, out chan<- int, prime int) {
	for {
		if i := <-in; i%prime != 0 {
			out <- i
		}
	}
}

// parked measures n goroutines that all wait to receive from one channel.
func parked(n int) {
	runtime.GC()
	before := residentBytes()
	start := time.Now()
	var started atomic.Int64
	var tasks sync.WaitGroup
	tasks.Add(n)
	gate := make(chan bool)
	for range n {
		go func() {
			started.Add(1)
			<-gate
			tasks.Done()
		}()
	}
	for started.Load() < int64(n) {
		runtime.Gosched()
	}
	created := time.Since(start)
	emit("bytes", float64(residentBytes()-before)/float64(n))
	emit("create_ns", float64(created)/float64(n))
	start = time.Now()
	close(gate)
	tasks.Wait()
	emit("wake_ns", float64(time.Since(start))/float64(n))
}

func residentBytes() int {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		fail("resident memory: %v", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		fail("resident memory: %v", err)
	}
	return pages * os.Getpagesize()
}
