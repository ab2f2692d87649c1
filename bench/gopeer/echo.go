package main

import (
	"net"
	"strconv"
	"syscall"
	"time"
)

// How long the hog and the blocking call last.
const disturbance = 2 * time.Second

// serveEcho sends back what it gets. A message of one byte is a command first:
// 'H' burns CPU, 'B' blocks in a system call, anything else does nothing.
func serveEcho(port int) {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		fail("%v", err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			fail("%v", err)
		}
		go echo(conn)
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 65536)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if n == 1 {
			disturb(buffer[0])
		}
		if _, err := conn.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func disturb(command byte) {
	switch command {
	case 'H':
		for end := time.Now().Add(disturbance); time.Now().Before(end); {
			hogResult = hog()
		}
	case 'B':
		block()
	}
}

var hogResult uint64 // keeps the compiler from dropping the loop

// hog computes for some 50 ms, five times as long as a goroutine may run. It
// makes no call in that time, so only asynchronous preemption interrupts it.
//
//go:noinline
func hog() uint64 {
	x := uint64(1)
	for range 50_000_000 {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

// block sleeps in the system call itself, where the scheduler knows nothing of
// a timer, and again for the rest if a signal cuts it short.
func block() {
	end := time.Now().Add(disturbance)
	for left := disturbance; left > 0; left = time.Until(end) {
		request := syscall.NsecToTimespec(int64(left))
		if err := syscall.Nanosleep(&request, nil); err != nil && err != syscall.EINTR {
			fail("nanosleep: %v", err)
		}
	}
}
