//! Clocks and waiting on Windows.
//!
//! RtlWaitOnAddress is the futex, but its time-outs count the system's ticks of 15.6 ms, and sysmon
//! wants 20 us. A shorter wait is therefore on a high-resolution timer and an event of the thread's
//! own, in a list. A thread that wakes others looks through that list. Raising the tick rate for
//! the process (timeBeginPeriod) was rejected: 0.5 ms is the best it gives, and it costs power all
//! the time.
const std = @import("std");
const w = std.os.windows;
const ntdll = w.ntdll;
const os = @import("os.zig");

const HANDLE = w.HANDLE;
const infinite: u32 = 0xffff_ffff;

extern "kernel32" fn CloseHandle(handle: HANDLE) callconv(.winapi) c_int;
extern "kernel32" fn WaitForSingleObject(handle: HANDLE, ms: u32) callconv(.winapi) u32;
extern "kernel32" fn WaitForMultipleObjects(
    count: u32,
    handles: [*]const HANDLE,
    all: c_int,
    ms: u32,
) callconv(.winapi) u32;
extern "kernel32" fn CreateEventW(
    attributes: ?*anyopaque,
    manual_reset: c_int,
    initial_state: c_int,
    name: ?[*:0]const u16,
) callconv(.winapi) ?HANDLE;
extern "kernel32" fn SetEvent(event: HANDLE) callconv(.winapi) c_int;
extern "kernel32" fn ResetEvent(event: HANDLE) callconv(.winapi) c_int;
extern "kernel32" fn CreateWaitableTimerExW(
    attributes: ?*anyopaque,
    name: ?[*:0]const u16,
    flags: u32,
    access: u32,
) callconv(.winapi) ?HANDLE;
extern "kernel32" fn SetWaitableTimer(
    timer: HANDLE,
    due: *const i64,
    period_ms: i32,
    completion: ?*const anyopaque,
    argument: ?*anyopaque,
    wake_system: c_int,
) callconv(.winapi) c_int;
extern "kernel32" fn FlsAlloc(
    callback: ?*const fn (?*anyopaque) callconv(.winapi) void,
) callconv(.winapi) u32;
extern "kernel32" fn FlsFree(index: u32) callconv(.winapi) c_int;
extern "kernel32" fn FlsGetValue(index: u32) callconv(.winapi) ?*anyopaque;
extern "kernel32" fn FlsSetValue(index: u32, value: ?*anyopaque) callconv(.winapi) c_int;

var counter_frequency = std.atomic.Value(u64).init(0);

/// Monotonic time in nanoseconds.
pub fn nanotime() u64 {
    var ticks: i64 = undefined;
    _ = ntdll.RtlQueryPerformanceCounter(&ticks);
    const now: u64 = @intCast(ticks);
    const frequency = counterFrequency();
    if (frequency == 10_000_000) return now * 100; // on nearly every machine
    return @intCast(@as(u128, now) * std.time.ns_per_s / frequency);
}

fn counterFrequency() u64 {
    const known = counter_frequency.load(.monotonic);
    if (known != 0) return known;
    var frequency: i64 = undefined;
    _ = ntdll.RtlQueryPerformanceFrequency(&frequency);
    counter_frequency.store(@intCast(frequency), .monotonic);
    return @intCast(frequency);
}

/// Relative time as the system takes it: negative, in units of 100 ns, never early.
fn relative(ns: u64) i64 {
    return -@as(i64, @intCast((ns + 99) / 100));
}

/// What a thread needs to wait for less than the system's tick of 15.6 ms.
const Clock = struct {
    timer: HANDLE,
    event: HANDLE,

    /// The thread's own, made at its first use and closed when it ends. Null where the system has
    /// no high-resolution timers (before Windows 10 1803).
    fn current() ?*Clock {
        const index = slot() orelse return null;
        if (FlsGetValue(index)) |raw| return @ptrCast(@alignCast(raw));
        const timer = CreateWaitableTimerExW(null, null, high_resolution, timer_all_access) orelse
            return null;
        const event = CreateEventW(null, 0, 0, null) orelse {
            _ = CloseHandle(timer);
            return null;
        };
        const raw = std.c.malloc(@sizeOf(Clock)) orelse {
            _ = CloseHandle(timer);
            _ = CloseHandle(event);
            return null;
        };
        const clock: *Clock = @ptrCast(@alignCast(raw));
        clock.* = .{ .timer = timer, .event = event };
        _ = FlsSetValue(index, clock);
        return clock;
    }

    fn set(clock: *Clock, ns: u64) void {
        const due = relative(ns);
        _ = SetWaitableTimer(clock.timer, &due, 0, null, null, 0);
    }

    fn close(raw: ?*anyopaque) callconv(.winapi) void {
        const clock: *Clock = @ptrCast(@alignCast(raw orelse return));
        _ = CloseHandle(clock.timer);
        _ = CloseHandle(clock.event);
        std.c.free(clock);
    }

    const high_resolution = 2;
    const timer_all_access = 0x1f_0003;
    const no_slot: u32 = 0xffff_ffff;
    var slot_index = std.atomic.Value(u32).init(no_slot);

    /// Fiber-local, since only those slots have a destructor.
    fn slot() ?u32 {
        const known = slot_index.load(.monotonic);
        if (known != no_slot) return known;
        const mine = FlsAlloc(close);
        if (mine == no_slot) return null;
        const other = slot_index.cmpxchgStrong(no_slot, mine, .monotonic, .monotonic) orelse
            return mine;
        _ = FlsFree(mine);
        return other;
    }
};

pub fn sleepNs(ns: u64) void {
    if (Clock.current()) |clock| {
        clock.set(ns);
        _ = WaitForSingleObject(clock.timer, infinite);
    } else {
        const due = relative(ns);
        _ = ntdll.NtDelayExecution(.FALSE, &due);
    }
}

/// Nothing to ask for: waits below `precise_below_ns` are always on a high-resolution timer.
pub fn preciseSleep() void {}

extern "kernel32" fn GetCurrentThread() callconv(.winapi) *anyopaque;
extern "kernel32" fn GetThreadPriority(thread: *anyopaque) callconv(.winapi) i32;
extern "kernel32" fn SetThreadPriority(thread: *anyopaque, priority: i32) callconv(.winapi) i32;

/// Has the calling thread, which never computes for long, run as soon as it wakes up.
pub fn promptWake() void {
    const highest = 2; // THREAD_PRIORITY_HIGHEST
    _ = SetThreadPriority(GetCurrentThread(), highest);
}

/// What `promptWake` changes of the calling thread.
pub const Promptness = struct {
    priority: i32,

    const unknown = std.math.maxInt(i32); // THREAD_PRIORITY_ERROR_RETURN

    pub fn ofThread() Promptness {
        return .{ .priority = GetThreadPriority(GetCurrentThread()) };
    }

    pub fn restore(p: Promptness) void {
        if (p.priority != unknown) _ = SetThreadPriority(GetCurrentThread(), p.priority);
    }
};

// ---- futex ----

/// A wait of less than this time is made precise: RtlWaitOnAddress counts ticks.
const precise_below_ns = 200 * std.time.ns_per_ms;

/// Waits while `word` holds `expected`. Spurious `woken` is possible. Nothing interrupts: Windows
/// has no signals.
pub fn futexWait(word: *const std.atomic.Value(u32), expected: u32, timeout_ns: ?u64) os.Wake {
    if (timeout_ns) |ns| {
        if (ns < precise_below_ns) {
            if (Clock.current()) |clock| return Waiter.wait(clock, word, expected, ns);
        }
    }
    const due = relative(timeout_ns orelse 0);
    const status = ntdll.RtlWaitOnAddress(
        &word.raw,
        &expected,
        @sizeOf(u32),
        if (timeout_ns != null) &due else null,
    );
    return if (status == .TIMEOUT) .timeout else .woken;
}

pub fn futexWake(word: *const std.atomic.Value(u32), count: u32) void {
    const left = count - Waiter.wake(word, count);
    if (left == 1) {
        ntdll.RtlWakeAddressSingle(&word.raw);
    } else if (left > 1) ntdll.RtlWakeAddressAll(&word.raw);
}

/// A thread in a precise wait: on its event and its timer, in one list, since hardly more than
/// sysmon is ever in it.
const Waiter = struct {
    word: *const std.atomic.Value(u32),
    event: HANDLE,
    listed: bool = true,
    next: ?*Waiter,

    var lock: w.SRWLOCK = .{};
    var first: ?*Waiter = null;
    /// Length of the list. The waiter adds itself, then loads the word; the waker has changed the
    /// word, then reads the length by a read-modify-write. These are totally ordered: either the
    /// waker sees the waiter, or the waiter's addition acquires from the waker and sees the word.
    var count = std.atomic.Value(u32).init(0);

    fn wait(
        clock: *Clock,
        word: *const std.atomic.Value(u32),
        expected: u32,
        ns: u64,
    ) os.Wake {
        ntdll.RtlAcquireSRWLockExclusive(&lock);
        var self: Waiter = .{ .word = word, .event = clock.event, .next = first };
        first = &self;
        _ = count.fetchAdd(1, .acq_rel);
        ntdll.RtlReleaseSRWLockExclusive(&lock);

        var timed_out = false;
        if (word.load(.acquire) == expected) {
            clock.set(ns);
            timed_out = WaitForMultipleObjects(2, &.{ clock.event, clock.timer }, 0, infinite) == 1;
        }

        ntdll.RtlAcquireSRWLockExclusive(&lock);
        defer ntdll.RtlReleaseSRWLockExclusive(&lock);
        if (self.listed) {
            self.unlink();
            return if (timed_out) .timeout else .woken;
        }
        // Another thread woke this one, perhaps after its time was up: the event must not stay set.
        _ = ResetEvent(clock.event);
        return .woken;
    }

    /// Returns how many threads it woke, at most `most`.
    fn wake(word: *const std.atomic.Value(u32), most: u32) u32 {
        if (count.fetchAdd(0, .acq_rel) == 0) return 0;
        ntdll.RtlAcquireSRWLockExclusive(&lock);
        defer ntdll.RtlReleaseSRWLockExclusive(&lock);
        var woken: u32 = 0;
        var it = first;
        while (it) |waiter| {
            if (woken == most) break;
            it = waiter.next;
            if (waiter.word != word) continue;
            waiter.unlink();
            _ = SetEvent(waiter.event);
            woken += 1;
        }
        return woken;
    }

    fn unlink(self: *Waiter) void {
        var link = &first;
        while (link.*.? != self) link = &link.*.?.next;
        link.* = self.next;
        self.listed = false;
        _ = count.fetchSub(1, .monotonic);
    }
};

test {
    std.testing.refAllDecls(@This());
}

const testing = std.testing;

test "waits below a tick are neither early nor a tick late" {
    for ([_]u64{ 50 * std.time.ns_per_us, 2 * std.time.ns_per_ms }) |ns| {
        var slept: u64 = std.math.maxInt(u64);
        var waited: u64 = std.math.maxInt(u64);
        var word: std.atomic.Value(u32) = .init(7);
        // The best of some, since a busy machine may delay any.
        for (0..8) |_| {
            const start = nanotime();
            sleepNs(ns);
            const between = nanotime();
            try testing.expectEqual(os.Wake.timeout, futexWait(&word, 7, ns));
            slept = @min(slept, between - start);
            waited = @min(waited, nanotime() - between);
        }
        for ([_]u64{ slept, waited }) |took| {
            try testing.expect(took >= ns);
            try testing.expect(took < ns + 10 * std.time.ns_per_ms);
        }
    }
}

test "a futex wait ends at once for another value" {
    var word: std.atomic.Value(u32) = .init(1);
    for ([_]?u64{ null, 1000, 10 * std.time.ns_per_s }) |timeout_ns|
        try testing.expectEqual(os.Wake.woken, futexWait(&word, 0, timeout_ns));
    try testing.expectEqual(0, Waiter.count.load(.monotonic));
}

test "no wake-up is lost between precise and other waits" {
    // Two threads pass a number to and fro, one waiting precisely, the other without a time-out.
    const T = struct {
        const rounds = 2000;
        var word: std.atomic.Value(u32) = .init(0);

        fn play(parity: u32, timeout_ns: ?u64) u32 {
            var timeouts: u32 = 0;
            while (true) {
                const now = word.load(.acquire);
                if (now >= rounds) return timeouts;
                if (now % 2 == parity) {
                    word.store(now + 1, .release);
                    futexWake(&word, 1);
                } else if (futexWait(&word, now, timeout_ns) == .timeout) timeouts += 1;
            }
        }

        fn other(_: ?*anyopaque) void {
            _ = play(1, null);
        }
    };
    const t = try os.spawn(T.other, null, .{ .stack_size = 64 * 1024 });
    const timeouts = T.play(0, precise_below_ns - 1);
    t.join();
    // A lost wake-up of this thread would show as a time-out, one of the other as a hang.
    try testing.expect(timeouts < T.rounds / 100);
    try testing.expectEqual(null, Waiter.first);
}

test "all waiters are woken, of both kinds" {
    const T = struct {
        var word: std.atomic.Value(u32) = .init(0);
        var waiting: std.atomic.Value(u32) = .init(0);

        fn wait(arg: ?*anyopaque) void {
            const timeout_ns: ?u64 = if (arg == null) null else precise_below_ns - 1;
            _ = waiting.fetchAdd(1, .monotonic);
            while (word.load(.acquire) == 0) _ = futexWait(&word, 0, timeout_ns);
        }
    };
    var threads: [6]os.Thread = undefined;
    for (&threads, 0..) |*t, i|
        t.* = try os.spawn(T.wait, if (i % 2 == 0) null else &T.word, .{ .stack_size = 64 * 1024 });
    while (T.waiting.load(.monotonic) < threads.len) sleepNs(std.time.ns_per_ms);
    sleepNs(5 * std.time.ns_per_ms);
    T.word.store(1, .release);
    futexWake(&T.word, std.math.maxInt(u32));
    for (threads) |t| t.join();
}
