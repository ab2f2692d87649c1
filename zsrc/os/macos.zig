//! The os layer on macOS.
//!
//! Waiting is by ulock, the futex that libc++, Go and Zig's own runtime park on: it has no public
//! header, but its symbols are in libSystem since 10.12 (`__ulock_wait2`: 11.0). The public
//! os_sync_wait_on_address came with 14.4 and is a thin cover of the same call.
const std = @import("std");
const builtin = @import("builtin");
const c = std.c;
const os = @import("os.zig");
const posix = @import("posix.zig");

pub const Thread = posix.Thread;
pub const spawn = posix.spawn;
pub const threadExitHere = posix.threadExitHere;
pub const thisThread = posix.thisThread;
pub const atFork = posix.atFork;
pub const exitProcess = posix.exitProcess;
pub const endByInterrupt = posix.endByInterrupt;
pub const allowInterrupts = posix.allowInterrupts;
pub const interrupt = posix.interrupt;
pub const signalThread = posix.signalThread;
pub const askForMask = posix.askForMask;
pub const awaitMasks = posix.awaitMasks;
pub const letInterruptsThrough = posix.letInterruptsThrough;
pub const sameMask = posix.sameMask;
pub const setMask = posix.setMask;
pub const SignalMask = posix.SignalMask;
pub const signalMask = posix.signalMask;
pub const sleepNs = posix.sleepNs;
pub const cpuCount = posix.cpuCount;
pub const openStack = posix.openStack;
pub const Slot = posix.Slot;
pub const slotGet = posix.slotGet;
pub const slotSet = posix.slotSet;
pub const findSlot = posix.findSlot;
pub const symbol = posix.symbol;
pub const writeStderr = posix.writeStderr;
pub const FaultStack = posix.FaultStack;
pub const handleFault = posix.handleFault;
pub const opens_guards = true;
pub const Disposition = posix.Disposition;
pub const takeSignal = posix.takeSignal;
pub const writeSignals = posix.writeSignals;
pub const passSignals = posix.passSignals;

/// 4 KiB on Intel, 16 KiB on Apple silicon.
pub const page_size: usize = if (builtin.cpu.arch == .aarch64) 16 * 1024 else 4 * 1024;

/// Monotonic time in nanoseconds. CLOCK_MONOTONIC counts in microseconds here; this one is what
/// mach_absolute_time returns, and Python's time.monotonic, and what the system's waits count in.
pub fn nanotime() u64 {
    var ts: c.timespec = undefined;
    _ = c.clock_gettime(.UPTIME_RAW, &ts);
    return @as(u64, @intCast(ts.sec)) * std.time.ns_per_s + @as(u64, @intCast(ts.nsec));
}

/// Lets the calling thread's short sleeps be short: the kernel delays the timers of threads of
/// lower classes, to have several at once.
pub fn preciseSleep() void {
    _ = c.pthread_set_qos_class_self_np(.USER_INTERACTIVE, 0);
}

/// For a thread that never computes for long: nothing more than its class does.
pub fn promptWake() void {}

/// What `preciseSleep` changes of the calling thread.
pub const Promptness = struct {
    class: c.qos_class_t,

    pub fn ofThread() Promptness {
        var class: c.qos_class_t = undefined;
        var relative: c_int = undefined;
        const rc = c.pthread_get_qos_class_np(c.pthread_self(), &class, &relative);
        return .{ .class = if (rc == 0) class else .UNSPECIFIED };
    }

    /// A thread with a priority that was set by hand has no class, and so gets none back.
    pub fn restore(p: Promptness) void {
        if (p.class != .UNSPECIFIED) _ = c.pthread_set_qos_class_self_np(p.class, 0);
    }
};

/// Waits while `word` holds `expected`. Spurious `woken` is possible, as with the system call.
pub fn futexWait(word: *const std.atomic.Value(u32), expected: u32, timeout_ns: ?u64) os.Wake {
    // The call takes 0 as "for ever".
    const ns = if (timeout_ns) |t| @max(t, 1) else 0;
    const op: c.UL = .{ .op = .COMPARE_AND_WAIT, .NO_ERRNO = true };
    const rc = c.__ulock_wait2(op, &word.raw, expected, ns, 0);
    if (rc >= 0) return .woken;
    return switch (@as(c.E, @fromBackingInt(@intCast(-rc)))) {
        .TIMEDOUT => .timeout,
        .INTR => .interrupted,
        else => .woken,
    };
}

/// Wakes one waiter, or all of them if `count` is more than one.
pub fn futexWake(word: *const std.atomic.Value(u32), count: u32) void {
    const op: c.UL = .{ .op = .COMPARE_AND_WAIT, .NO_ERRNO = true, .WAKE_ALL = count > 1 };
    // A signal may interrupt the call before it has woken a thread.
    while (c.__ulock_wake(op, &word.raw, 0) == -@as(c_int, @backingInt(c.E.INTR))) {}
}

const anonymous: c.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true, .NORESERVE = true };

/// Reserves address space that costs memory only where it is touched.
pub fn reserve(size: usize) error{OutOfMemory}![*]align(4096) u8 {
    const rc = c.mmap(null, size, .{ .READ = true, .WRITE = true }, anonymous, -1, 0);
    if (rc == c.MAP_FAILED) return error.OutOfMemory;
    return @ptrCast(@alignCast(rc));
}

pub fn release(pages: [*]align(4096) u8, size: usize) void {
    _ = c.munmap(@ptrCast(@alignCast(pages)), size);
}

/// Gives the memory of these pages back; they read as zeroes afterwards. The kernel takes
/// MADV_DONTNEED for a hint and MADV_FREE keeps old contents, so the pages are mapped anew.
pub fn discard(pages: [*]align(4096) u8, size: usize) void {
    const at: *align(page_size) anyopaque = @ptrCast(@alignCast(pages));
    var flags = anonymous;
    flags.FIXED = true;
    _ = c.mmap(at, size, .{ .READ = true, .WRITE = true }, flags, -1, 0);
}

/// Makes these pages fault on any access.
pub fn guard(pages: [*]align(4096) u8, size: usize) error{OutOfMemory}!void {
    if (c.mprotect(@ptrCast(@alignCast(pages)), size, .{}) != 0) return error.OutOfMemory;
}

/// Undoes `guard`. In a signal handler too.
pub fn unguard(pages: [*]align(4096) u8, size: usize) bool {
    return c.mprotect(@ptrCast(@alignCast(pages)), size, .{ .READ = true, .WRITE = true }) == 0;
}

test {
    std.testing.refAllDecls(@This());
}

test "a guarded page cannot be read, a discarded one is zero" {
    const size = 4 * page_size;
    const pages = try reserve(size);
    defer release(pages, size);
    try guard(pages, page_size);
    var fds: [2]c.fd_t = undefined;
    try std.testing.expectEqual(0, c.pipe(&fds));
    defer for (fds) |fd| {
        _ = c.close(fd);
    };
    // The kernel refuses to read the page.
    try std.testing.expectEqual(-1, c.write(fds[1], pages, 1));
    const rest = pages + page_size;
    rest[0] = 1;
    discard(@alignCast(rest), size - page_size);
    try std.testing.expectEqual(0, rest[0]);
    rest[0] = 2;
}

test "a futex wait ends at once for another value, and at its time" {
    var word: std.atomic.Value(u32) = .init(1);
    try std.testing.expectEqual(os.Wake.woken, futexWait(&word, 0, null));
    const start = nanotime();
    try std.testing.expectEqual(os.Wake.timeout, futexWait(&word, 1, std.time.ns_per_ms));
    try std.testing.expect(nanotime() - start >= std.time.ns_per_ms);
    futexWake(&word, 1);
}

test "the alternate stack is there and gone again" {
    const memory = try std.testing.allocator.alloc(u8, FaultStack.size);
    defer std.testing.allocator.free(memory);
    var before: c.stack_t = undefined;
    var now: c.stack_t = undefined;
    try std.testing.expectEqual(0, c.sigaltstack(null, &before));
    var stack: FaultStack = .{};
    stack.enter(memory);
    try std.testing.expectEqual(0, c.sigaltstack(null, &now));
    try std.testing.expectEqual(memory.ptr, now.sp);
    stack.leave();
    try std.testing.expectEqual(0, c.sigaltstack(null, &now));
    try std.testing.expectEqual(before.flags, now.flags);
}

extern "c" fn malloc_size(block: ?*const anyopaque) usize;

/// Bytes of a block of the C library's allocator.
pub fn allocatedSize(block: *const anyopaque) usize {
    return malloc_size(block);
}

/// CPUs that a quota allows: no such thing here.
pub fn cpuQuota() ?u32 {
    return null;
}

/// Copies memory that may not be there any more: no caller needs it here yet.
pub fn peek(_: usize, _: []u8) bool {
    return false;
}

/// Tells a fork's child from the process that it came from.
pub fn processId() i32 {
    return std.c.getpid();
}

/// Of the calling thread, as `threadIds` would have it.
pub fn threadId() i32 {
    return 0;
}

extern "c" fn pthread_get_stackaddr_np(thread: c.pthread_t) usize;
extern "c" fn pthread_get_stacksize_np(thread: c.pthread_t) usize;

/// The lowest address and the size of a thread's stack.
pub fn stackOf(thread: Thread) ?[2]usize {
    const size = pthread_get_stacksize_np(thread.handle);
    return .{ pthread_get_stackaddr_np(thread.handle) - size, size };
}

extern "c" fn pthread_main_np() c_int;

pub fn onMainThread() bool {
    return pthread_main_np() != 0;
}

/// CPU time that a thread has had: not known here.
pub fn threadCpuTime(_: i32) ?u64 {
    return null;
}

/// All threads of this process: not known here.
pub fn threadIds(_: []i32) ?usize {
    return null;
}
