//! What lock-free code takes from the machine: atomics, a lock, a note, a clock. It is generic over
//! this, so that `zsrc/check` can run the same code with an environment in which every access is a
//! scheduling point (zsrc/check/sim.zig).
const std = @import("std");
const os = @import("os.zig");
const counter = @import("counter.zig");

pub const Real = struct {
    pub fn Atomic(comptime T: type) type {
        return std.atomic.Value(T);
    }

    pub const Lock = SpinLock;
    pub const Note = os.Note;
    pub const Rest = os.Rest;
    pub const Thread = os.Thread;

    /// Go's runtime/runtime2.go: the size of p.runq. Models take a shorter one.
    pub const local_queue_size = 256;

    /// A broken invariant: ends the process with one line.
    pub const fatal = os.fatal;
    pub const writeStderr = os.writeStderr;

    pub inline fn spin() void {
        std.atomic.spinLoopHint();
    }

    pub inline fn yield() void {
        std.Thread.yield() catch {};
    }

    pub inline fn nanotime() u64 {
        return os.nanotime();
    }

    /// The time of an event, see counter.zig.
    pub const ticksInOrder = counter.readInOrder;

    /// Names a plain field that atomics protect, before it is read. The explorer tells when no
    /// ordering separates it from a write.
    pub inline fn reads(_: anytype) void {}

    /// The same before it is written.
    pub inline fn writes(_: anytype) void {}
};

/// For sections of a few dozen instructions. golibx never preempts the holder. If the kernel took
/// the holder off its CPU, a thread that waits gives its own CPU away.
pub const SpinLock = struct {
    word: std.atomic.Value(u32) = .init(0),

    const spins_before_yield = 64;

    pub inline fn lock(l: *SpinLock) void {
        // Acquire pairs with the release in `unlock`.
        if (l.word.cmpxchgWeak(0, 1, .acquire, .monotonic) != null) l.lockSlow();
    }

    noinline fn lockSlow(l: *SpinLock) void {
        @branchHint(.cold);
        var spins: u32 = 0;
        while (true) {
            while (l.word.load(.monotonic) != 0) {
                if (spins < spins_before_yield) {
                    std.atomic.spinLoopHint();
                    spins += 1;
                } else std.Thread.yield() catch {};
            }
            if (l.word.cmpxchgWeak(0, 1, .acquire, .monotonic) == null) return;
        }
    }

    pub inline fn tryLock(l: *SpinLock) bool {
        return l.word.cmpxchgStrong(0, 1, .acquire, .monotonic) == null;
    }

    pub inline fn unlock(l: *SpinLock) void {
        if (std.debug.runtime_safety and l.word.load(.monotonic) != 1)
            os.fatal("a lock is let go that nobody holds", .{});
        l.word.store(0, .release);
    }
};
