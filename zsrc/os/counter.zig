//! The processor's counter, as a clock that takes little to read.
//!
//! An event's time is most of what recording it costs: the system's clock takes some 35 ns. On
//! Linux that clock is made of the counter, which alone takes 10 to 15 ns on x86-64. So rings of
//! events have what the counter said, and the reader of events makes nanoseconds of it, many at
//! once (event/clock.zig).
//!
//! Whether the counter may be trusted is for the kernel to say, which tests it on all CPUs: that it
//! does not stop, keeps its pace, and is the same on each. It is trusted here where the kernel
//! makes its own clock of it, without a system call: clocksource "tsc". Then no CPU's is behind
//! another's by what would make the system's clock go back, so it is as good for order as that
//! clock. A virtual machine whose clocksource is kvm-clock or Hyper-V's may have one that differs
//! between CPUs or jumps as it moves to another host, and the hypervisor says so to the kernel
//! only: there the system's clock is read, as on other processors and systems, and where /sys is
//! not to be seen. A counter that the kernel stops trusting later is kept, since the rings are full
//! of it: each batch is fitted to the system's clock anew.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("os.zig");

const has_counter = builtin.os.tag == .linux and builtin.cpu.arch == .x86_64;

var trusted = false;
var decided = false;

/// Before anything is read that is compared with what is read later. Decides once in a process, by
/// some system calls. Not from two threads at once.
pub fn begin() void {
    if (!has_counter or decided) return;
    decided = true;
    trusted = os.impl.trustsCounter();
}

/// Whether `read` is other than the system's clock.
pub inline fn isTrusted() bool {
    return has_counter and trusted;
}

/// Ticks, or nanoseconds of the system's clock. The processor may read it somewhat earlier or later
/// than it does what stands before or after.
pub inline fn read() u64 {
    return if (isTrusted()) timeStamp("") else os.nanotime();
}

/// The same, after all that stands before is done, and before what stands after is begun.
pub inline fn readInOrder() u64 {
    return if (isTrusted()) timeStamp("lfence\n") else os.nanotime();
}

inline fn timeStamp(comptime fence: []const u8) u64 {
    var low: u32 = undefined;
    var high: u32 = undefined;
    asm volatile (fence ++ "rdtsc\n" ++ fence
        : [low] "={eax}" (low),
          [high] "={edx}" (high),
        :
        : .{ .memory = fence.len > 0 });
    return @as(u64, high) << 32 | low;
}

test "the counter goes on" {
    begin();
    defer trusted = false; // others have the system's clock
    var last = readInOrder();
    for (0..1000) |_| {
        const now = readInOrder();
        try std.testing.expect(now >= last);
        last = now;
    }
    try std.testing.expect(read() >= last -| 1000);
}
