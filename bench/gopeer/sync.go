package main

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// Tasks that want the same lock or permits; children of a scope. harness.py has the same.
const (
	contenders = 10
	children   = 1000
)

func mutex(n int) {
	var lock sync.Mutex
	for range n {
		lock.Lock()
		lock.Unlock()
	}
}

// contended has goroutines give way while they hold the lock.
func contended(n int) {
	var lock sync.Mutex
	var workers sync.WaitGroup
	for range contenders {
		workers.Go(func() {
			for range n / contenders {
				lock.Lock()
				runtime.Gosched()
				lock.Unlock()
			}
		})
	}
	workers.Wait()
}

// cond has two goroutines take turns.
func cond(n int) {
	var lock sync.Mutex
	changed := sync.NewCond(&lock)
	var workers sync.WaitGroup
	turn := 0
	for mine := range 2 {
		workers.Go(func() {
			for range n / 2 {
				lock.Lock()
				for turn != mine {
					changed.Wait()
				}
				turn = 1 - mine
				changed.Signal()
				lock.Unlock()
			}
		})
	}
	workers.Wait()
}

// semaphore is a channel with as much room as there are permits: the standard
// library has no other.
func semaphore(n int) {
	permits := make(chan struct{}, contenders/2)
	var workers sync.WaitGroup
	for range contenders {
		workers.Go(func() {
			for range n / contenders {
				permits <- struct{}{}
				runtime.Gosched()
				<-permits
			}
		})
	}
	workers.Wait()
}

func cancelContexts(n int) {
	parent, cancelParent := context.WithCancel(context.Background())
	defer cancelParent()
	for range n {
		_, cancel := context.WithCancel(parent)
		cancel()
	}
}

func timeOutContexts(n int) {
	parent, cancelParent := context.WithCancel(context.Background())
	defer cancelParent()
	for range n {
		_, cancel := context.WithTimeout(parent, time.Minute)
		cancel()
	}
}

// stopTimers starts n timers, then stops them all.
func stopTimers(n int) {
	started := make([]*time.Timer, n)
	for i := range started {
		started[i] = time.AfterFunc(time.Duration(60+i%1000)*time.Second, func() {})
	}
	for _, timer := range started {
		timer.Stop()
	}
}

// scopes has as many goroutines as a scope has children start and end, under a
// context that is cancelled when all have ended, as x/sync/errgroup does.
func scopes(n int) {
	for range n / children {
		_, cancel := context.WithCancel(context.Background())
		var tasks sync.WaitGroup
		for range children {
			tasks.Go(func() {})
		}
		tasks.Wait()
		cancel()
	}
}
