package main

import (
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Before the measurement starts, so that buffers, caches and malloc's thresholds settle.
const warmUp = time.Second

const (
	warming = iota
	measuring
	finished
)

// runLoad keeps one request under way on each connection and measures the rate,
// the latency, and the CPU time that the server spends on a request.
func runLoad(port, connections, size int, duration time.Duration, serverPID int) {
	conns := make([]net.Conn, connections)
	for i := range conns {
		conns[i] = dial(port)
	}
	var phase atomic.Int32
	latencies := make([][]time.Duration, connections)
	var clients sync.WaitGroup
	for i, conn := range conns {
		clients.Go(func() {
			request, reply := make([]byte, size), make([]byte, size)
			measured := make([]time.Duration, 0, 1<<16)
			for phase.Load() != finished {
				start := time.Now()
				exchange(conn, request, reply)
				if phase.Load() == measuring {
					measured = append(measured, time.Since(start))
				}
			}
			latencies[i] = measured
		})
	}
	time.Sleep(warmUp)
	cpuBefore, start := processCPU(serverPID), time.Now()
	phase.Store(measuring)
	time.Sleep(duration)
	phase.Store(finished)
	elapsed, cpu := time.Since(start), processCPU(serverPID)-cpuBefore
	clients.Wait()
	all := slices.Concat(latencies...)
	emit("cpu_us", cpu.Seconds()*1e6/float64(len(all)))
	emit("rate", float64(len(all))/elapsed.Seconds())
	emitLatencies(all)
}

// runLatency sends rate requests a second on each connection while the server
// obeys a command ('-' for none) that came on a connection of its own.
//
// A request's latency counts from when it was due, so that requests which could
// not be sent because an earlier one was stuck count as late too.
func runLatency(port, connections, rate int, duration time.Duration, command string) {
	conns := make([]net.Conn, connections)
	for i := range conns {
		conns[i] = dial(port)
	}
	control := dial(port)
	exchange(control, []byte{'E'}, make([]byte, 1))

	start := time.Now().Add(200 * time.Millisecond)
	interval := time.Second / time.Duration(rate)
	first := -max(1, rate/10) // warm-up requests have negative numbers
	last := int(duration.Seconds() * float64(rate))
	latencies := make([][]time.Duration, connections)
	var clients sync.WaitGroup
	for i, conn := range conns {
		clients.Go(func() {
			offset := interval * time.Duration(i) / time.Duration(connections)
			request, reply := make([]byte, 64), make([]byte, 64)
			for k := first; k < last; k++ {
				due := start.Add(offset + time.Duration(k)*interval)
				if wait := time.Until(due); wait > 0 {
					time.Sleep(wait)
					due = time.Now() // the client's own timer is not the server's latency
				}
				exchange(conn, request, reply)
				if k >= 0 {
					latencies[i] = append(latencies[i], time.Since(due))
				}
			}
		})
	}
	time.Sleep(time.Until(start))
	if command != "-" {
		began := time.Now()
		exchange(control, []byte(command), make([]byte, 1))
		emit("disturbed_ms", float64(time.Since(began))/1e6)
	}
	clients.Wait()
	emitLatencies(slices.Concat(latencies...))
}

func dial(port int) net.Conn {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		fail("%v", err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		fail("%v", err)
	}
	return conn
}

func exchange(conn net.Conn, request, reply []byte) {
	if _, err := conn.Write(request); err != nil {
		fail("send: %v", err)
	}
	if _, err := io.ReadFull(conn, reply); err != nil {
		fail("receive: %v", err)
	}
}

func emitLatencies(latencies []time.Duration) {
	if len(latencies) == 0 {
		fail("no request was answered")
	}
	slices.Sort(latencies)
	at := func(fraction float64) float64 {
		return float64(latencies[int(fraction*float64(len(latencies)-1))]) / 1e6
	}
	emit("p50_ms", at(0.50))
	emit("p99_ms", at(0.99))
	emit("max_ms", at(1))
}

// processCPU returns the CPU time of all threads of a process, in nanoseconds:
// /proc/PID/stat would count in steps of 10 ms. The clock's number is what
// clock_getcpuclockid(3) computes from a process id.
func processCPU(pid int) time.Duration {
	const scheduled = 2 // CPUCLOCK_SCHED
	clock := ^pid<<3 | scheduled
	var cpu syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock),
		uintptr(unsafe.Pointer(&cpu)), 0)
	if errno != 0 {
		fail("CPU time of process %d: %v", pid, errno)
	}
	return time.Duration(cpu.Nano())
}
