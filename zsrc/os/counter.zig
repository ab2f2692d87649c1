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
/// Nanoseconds for a tick, in units of 2^-32.
var scale: u64 = 1 << scale_bits;
const scale_bits = 32;
/// How long `scale` is measured: the two moments are known to some ten nanoseconds, which makes it
/// right to a thousandth.
const measured_ns = 50 * std.time.ns_per_us;

/// Before anything is read that is compared with what is read later. Decides once in a process, by
/// some system calls, and takes 50 µs. Not from two threads at once.
pub fn begin() void {
    if (!has_counter or decided) return;
    decided = true;
    trusted = os.impl.trustsCounter();
    if (!trusted) return;
    const from: Moment = .now();
    while (os.nanotime() -| from.ns < measured_ns) std.atomic.spinLoopHint();
    const until: Moment = .now();
    trusted = until.ticks > from.ticks;
    if (trusted) scale = ((until.ns -| from.ns) << scale_bits) / (until.ticks - from.ticks);
}

/// What the counter and the system's clock said at once.
pub const Moment = struct {
    ticks: u64,
    ns: u64,

    /// A thread that loses its CPU in between reads them at two times. The quickest is the best.
    const tries = 3;

    pub fn now() Moment {
        var best: Moment = undefined;
        var shortest: u64 = std.math.maxInt(u64);
        for (0..tries) |_| {
            const before = readInOrder();
            const ns = os.nanotime();
            const took = readInOrder() -% before;
            if (took >= shortest) continue;
            shortest = took;
            best = .{ .ticks = before +% took / 2, .ns = ns };
        }
        return best;
    }
};

/// How long so many ticks are: of a time between two readings, which need not be exact.
pub inline fn nsOf(ticks: u64) u64 {
    return if (isTrusted()) @truncate(@as(u128, ticks) * scale >> scale_bits) else ticks;
}

pub fn ticksOf(ns: u64) u64 {
    return if (isTrusted()) @truncate((@as(u128, ns) << scale_bits) / scale) else ns;
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

test "ticks last as long as the system's clock says" {
    begin();
    defer trusted = false; // others have the system's clock
    const from: Moment = .now();
    while (os.nanotime() - from.ns < std.time.ns_per_ms) {}
    const until: Moment = .now();
    const ns = until.ns - from.ns;
    const told = nsOf(until.ticks - from.ticks);
    try std.testing.expect(@max(ns, told) - @min(ns, told) < ns / 100);
    const ticks = ticksOf(ns);
    try std.testing.expect(nsOf(ticks) <= ns and nsOf(ticks + 2) >= ns);
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
