package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The cases that are about CPU time and processors. ../native_micro.c has the
// same ones, and says why they are as they are.

// How often each goroutine of the timer case sleeps.
const naps = 2

// How often the speed-up is measured.
const rounds = 5

func timers(n int) {
	late := make([]time.Duration, naps*n)
	emit("cold_cpu_ns", cpuOfTimers(late))
	emit("cpu_ns", cpuOfTimers(late))
	slices.Sort(late)
	if late[0] < 0 {
		fail("a sleep was %v too short", -late[0])
	}
	emit("late_p99_ms", float64(late[(len(late)-1)*99/100])/1e6)
}

// cpuOfTimers returns the CPU time of a timer in nanoseconds; its goroutine's
// start and end are part of it.
func cpuOfTimers(late []time.Duration) float64 {
	before := cpuTime()
	var tasks sync.WaitGroup
	tasks.Add(len(late) / naps)
	for number := 0; number < len(late); number += naps {
		go func() {
			for i := number; i < number+naps; i++ {
				nap, start := napTime(uint64(i)), time.Now()
				time.Sleep(nap)
				late[i] = time.Since(start) - nap
			}
			tasks.Done()
		}()
	}
	tasks.Wait()
	return float64(cpuTime()-before) / float64(len(late))
}

// napTime is 1 to 1000 ms, different for each number: splitmix64.
func napTime(number uint64) time.Duration {
	x := (number + 1) * 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return time.Duration(1_000_000 + x%999_000_000)
}

// cpuTime is the user and system time of all threads so far.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fail("CPU time: %v", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func speedup(n int) {
	var ratio, serial, parallel []float64
	var tasks sync.WaitGroup
	for range rounds {
		start := time.Now()
		for range 2 {
			tasks.Go(func() { burn(n) })
			tasks.Wait()
		}
		oneByOne := time.Since(start)
		start = time.Now()
		for range 2 {
			tasks.Go(func() { burn(n) })
		}
		tasks.Wait()
		atOnce := time.Since(start)
		ratio = append(ratio, float64(oneByOne)/float64(atOnce))
		serial = append(serial, float64(oneByOne)/1e6)
		parallel = append(parallel, float64(atOnce)/1e6)
	}
	emit("speedup", median(ratio))
	emit("serial_ms", median(serial))
	emit("parallel_ms", median(parallel))
}

var burnt atomic.Uint64 // keeps the compiler from dropping the loop

func burn(n int) {
	x := uint64(1)
	for range n {
		x = next(x)
	}
	burnt.Store(x)
}

func next(x uint64) uint64 {
	return x*6364136223846793005 + 1442695040888963407
}

func median(values []float64) float64 {
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

const (
	turns           = 15   // of each mode
	size            = 1000 // of the matrix
	iterations      = 10   // of the power method, four products each
	rowsALook       = 20   // at the clock
	tasksAProcessor = 4
)

// preempt lets contests of n milliseconds take turns, without preemption and
// with Go's, whose slice is 10 ms. Each is a process: GODEBUG is for a whole one.
func preempt(n int) {
	program, err := os.Executable()
	if err != nil {
		fail("%v", err)
	}
	rates := map[string][]float64{}
	cpuRates := map[string][]float64{}
	var kept, cpuKept []float64
	for turn := range turns {
		modes := []string{"1", "0"} // asyncpreemptoff
		if turn%2 == 1 {
			slices.Reverse(modes)
		}
		for _, off := range modes {
			command := exec.Command(program, "micro", "contest", strconv.Itoa(n))
			command.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff="+off)
			command.Stderr = os.Stderr
			output, err := command.Output()
			if err != nil {
				fail("preempt: %v", err)
			}
			var krows, cpuKrows float64
			if _, err := fmt.Sscanf(string(output), contestOutput, &krows, &cpuKrows); err != nil {
				fail("preempt: %v in %q", err, output)
			}
			rates[off] = append(rates[off], krows)
			cpuRates[off] = append(cpuRates[off], cpuKrows)
		}
		kept = append(kept, 100*rates["0"][turn]/rates["1"][turn])
		cpuKept = append(cpuKept, 100*cpuRates["0"][turn]/cpuRates["1"][turn])
	}
	emit("kept_10ms", median(kept))
	emit("cpu_kept_10ms", median(cpuKept))
	emit("krows_off", median(rates["1"]))
	emit("krows_10ms", median(rates["0"]))
}

const contestOutput = "%f krows/s, %f for a second of CPU time\n"

// contest has more goroutines than processors compute spectral norms for n
// milliseconds, and counts the rows of products that they did together.
func contest(n int) {
	expected, _ := spectralNorm(newSpace(), time.Now().Add(time.Hour))
	if math.Abs(expected-1.274224) > 1e-5 {
		fail("a norm of %v", expected)
	}
	var total atomic.Int64
	var tasks sync.WaitGroup
	duration := time.Duration(n) * time.Millisecond
	cpuBefore := cpuTime()
	end := time.Now().Add(duration)
	for range tasksAProcessor * runtime.GOMAXPROCS(0) {
		tasks.Go(func() {
			space := newSpace()
			for {
				norm, rows := spectralNorm(space, end)
				total.Add(int64(rows))
				if math.IsNaN(norm) {
					break
				}
				if norm != expected {
					fail("norm %v, not %v", norm, expected)
				}
			}
		})
	}
	tasks.Wait()
	krows := float64(total.Load()) / 1e3
	fmt.Printf(contestOutput, krows/duration.Seconds(), krows/(cpuTime()-cpuBefore).Seconds())
}

type vectors struct{ u, v, half []float64 }

func newSpace() vectors {
	return vectors{make([]float64, size), make([]float64, size), make([]float64, size)}
}

// spectralNorm returns NaN if end came first, and the rows done before it.
func spectralNorm(space vectors, end time.Time) (norm float64, rows int) {
	u, v, half := space.u, space.v, space.half
	for i := range u {
		u[i] = 1
	}
	for range iterations {
		if !multiply(u, half, false, end, &rows) || !multiply(half, v, true, end, &rows) ||
			!multiply(v, half, false, end, &rows) || !multiply(half, u, true, end, &rows) {
			return math.NaN(), rows
		}
	}
	var uv, vv float64
	for i := range u {
		uv += u[i] * v[i]
		vv += v[i] * v[i]
	}
	return math.Sqrt(uv / vv), rows
}

// multiply is out = A in, or with A's transpose. It returns false if end came
// meanwhile, and adds to rows those that were done before.
func multiply(in, out []float64, transposed bool, end time.Time, rows *int) bool {
	for i := range out {
		sum := 0.0
		if transposed {
			for j, x := range in {
				sum += element(j, i) * x
			}
		} else {
			for j, x := range in {
				sum += element(i, j) * x
			}
		}
		out[i] = sum
		if (i+1)%rowsALook == 0 {
			if !time.Now().Before(end) {
				return false
			}
			*rows += rowsALook
		}
	}
	return true
}

func element(i, j int) float64 {
	return 1 / float64((i+j)*(i+j+1)/2+i+1)
}
