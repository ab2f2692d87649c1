package main

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// The cases in which any number of processors has something to do; ../scale.py
// runs them. ../native_micro.c has the same ones. Each leaves a sum of what its
// goroutines did, which has to be the same there.

const (
	spawners  = 64
	pairCount = 64
	ends      = 32 // that send, and as many that receive
	selectors = 32
	steps     = 1000 // of a task that is fanned out
)

var sum atomic.Uint64

// storm starts n goroutines that do nothing, from many.
func storm(n int) {
	each := n / spawners
	var tasks sync.WaitGroup
	tasks.Add(spawners + spawners*each)
	for range spawners {
		go func() {
			for range each {
				go func() { tasks.Done() }()
			}
			sum.Add(uint64(each))
			tasks.Done()
		}()
	}
	tasks.Wait()
}

// pairs sends n messages between the two of many pairs.
func pairs(n int) {
	rounds := n / 2 / pairCount
	var tasks sync.WaitGroup
	for range pairCount {
		there, back := make(chan int), make(chan int)
		tasks.Go(func() {
			for range rounds {
				back <- <-there
			}
		})
		tasks.Go(func() {
			returned := 0
			for i := range rounds {
				there <- i
				returned += <-back
			}
			sum.Add(uint64(returned))
		})
	}
	tasks.Wait()
}

// hot sends n messages through one channel, from many to many.
func hot(n int) {
	messages := make(chan int, 128)
	var tasks sync.WaitGroup
	var left atomic.Int32
	left.Store(ends)
	for range ends {
		tasks.Go(func() {
			for i := range n / ends {
				messages <- i
			}
			if left.Add(-1) == 0 {
				close(messages)
			}
		})
		tasks.Go(func() {
			received := 0
			for message := range messages {
				received += message
			}
			sum.Add(uint64(received))
		})
	}
	tasks.Wait()
}

// selects receives each of n messages by a select over four channels; there are
// many such selects.
func selects(n int) {
	each := n / selectors / 4
	var tasks sync.WaitGroup
	for range selectors {
		var sources [4]chan int
		for j := range sources {
			sources[j] = make(chan int)
			tasks.Go(func() {
				for i := range each {
					sources[j] <- i
				}
			})
		}
		tasks.Go(func() {
			received := 0
			for range 4 * each {
				var message int
				select {
				case message = <-sources[0]:
				case message = <-sources[1]:
				case message = <-sources[2]:
				case message = <-sources[3]:
				}
				received += message
			}
			sum.Add(uint64(received))
		})
	}
	tasks.Wait()
}

// fanout has one goroutine start n that compute for a microsecond or two: other
// processors have to steal them.
func fanout(n int) {
	values := make([]uint64, n)
	var tasks sync.WaitGroup
	tasks.Add(n)
	for i := range values {
		values[i] = uint64(i)
		go func() {
			x := values[i]
			for range steps {
				x = next(x)
			}
			values[i] = x
			tasks.Done()
		}()
	}
	tasks.Wait()
	var added uint64
	for _, value := range values {
		added += value >> 40
	}
	sum.Add(added)
}

// norms computes n spectral norms at once.
func norms(n int) {
	never := time.Now().Add(time.Hour)
	spaces := make([]vectors, n)
	for i := range spaces {
		spaces[i] = newSpace()
	}
	var tasks sync.WaitGroup
	for _, space := range spaces {
		tasks.Go(func() {
			norm, _ := spectralNorm(space, never)
			if math.Abs(norm-1.274224) > 1e-5 {
				fail("a norm of %v", norm)
			}
			sum.Add(uint64(math.Round(norm * 1e9)))
		})
	}
	tasks.Wait()
}
