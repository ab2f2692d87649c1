//! The os layer on Linux.
const std = @import("std");
const linux = std.os.linux;
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
pub const nanotime = posix.nanotime;
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

pub const page_size: usize = 4096;

/// Lets the calling thread's short sleeps be short: the default timer slack is 50 us.
pub fn preciseSleep() void {
    _ = linux.prctl(@backingInt(linux.PR.SET_TIMERSLACK), 1000, 0, 0, 0);
}

/// The kernel's struct sched_attr in its first version (include/uapi/linux/sched/types.h).
const SchedAttr = extern struct {
    size: u32 = @sizeOf(SchedAttr),
    policy: u32 = 0,
    flags: u64 = 0,
    nice: i32 = 0,
    priority: u32 = 0,
    runtime: u64 = 0,
    deadline: u64 = 0,
    period: u64 = 0,

    /// Null where that is unknown, or of a policy that has no slices.
    fn ofThread() ?SchedAttr {
        var attr: SchedAttr = .{};
        const got = linux.syscall4(.sched_getattr, 0, @intFromPtr(&attr), @sizeOf(SchedAttr), 0);
        if (linux.errno(got) != .SUCCESS or attr.policy != other) return null;
        attr.size = @sizeOf(SchedAttr); // the kernel's may be more
        return attr;
    }

    fn set(attr: SchedAttr) void {
        _ = linux.syscall3(.sched_setattr, 0, @intFromPtr(&attr), 0);
    }

    const other = 0; // SCHED_OTHER
    /// The shortest slice that the kernel grants (kernel/sched/syscalls.c).
    const short_slice_ns = 100 * std.time.ns_per_us;
};

/// Has the calling thread, which never computes for long, run as soon as it wakes up: one with a
/// short slice takes the CPU from one with a longer slice at once (Linux 6.12+). Otherwise it waits
/// for the end of that, 4 ms, even while another CPU is idle. Takes no privilege; older kernels
/// ignore it.
pub fn promptWake() void {
    var attr = SchedAttr.ofThread() orelse return;
    attr.runtime = SchedAttr.short_slice_ns;
    attr.set();
}

/// What `preciseSleep` and `promptWake` change of the calling thread, and of those that it starts.
pub const Promptness = struct {
    slack: usize,
    attr: ?SchedAttr,

    pub fn ofThread() Promptness {
        return .{
            .slack = linux.prctl(@backingInt(linux.PR.GET_TIMERSLACK), 0, 0, 0, 0),
            .attr = .ofThread(),
        };
    }

    pub fn restore(p: Promptness) void {
        _ = linux.prctl(@backingInt(linux.PR.SET_TIMERSLACK), p.slack, 0, 0, 0);
        if (p.attr) |attr| attr.set();
    }
};

test "a thread is as prompt as before" {
    const before: Promptness = .ofThread();
    preciseSleep();
    promptWake();
    const prompt: Promptness = .ofThread();
    try std.testing.expectEqual(1000, prompt.slack);
    before.restore();
    const after: Promptness = .ofThread();
    try std.testing.expectEqual(before, after);
}

/// Waits while `word` holds `expected`. Spurious `woken` is possible, as with the system call.
pub fn futexWait(word: *const std.atomic.Value(u32), expected: u32, timeout_ns: ?u64) os.Wake {
    var ts: linux.timespec = undefined;
    if (timeout_ns) |ns| ts = .{
        .sec = @intCast(ns / std.time.ns_per_s),
        .nsec = @intCast(ns % std.time.ns_per_s),
    };
    const rc = linux.futex_4arg(
        &word.raw,
        .{ .cmd = .WAIT, .private = true },
        expected,
        if (timeout_ns != null) &ts else null,
    );
    return switch (linux.errno(rc)) {
        .TIMEDOUT => .timeout,
        .INTR => .interrupted,
        else => .woken,
    };
}

pub fn futexWake(word: *const std.atomic.Value(u32), count: u32) void {
    _ = linux.futex_3arg(&word.raw, .{ .cmd = .WAKE, .private = true }, count);
}

/// Reserves address space that costs memory only where it is touched.
pub fn reserve(size: usize) error{OutOfMemory}![*]align(4096) u8 {
    const rc = linux.mmap(
        null,
        size,
        .{ .READ = true, .WRITE = true },
        .{ .TYPE = .PRIVATE, .ANONYMOUS = true, .NORESERVE = true },
        -1,
        0,
    );
    if (linux.errno(rc) != .SUCCESS) return error.OutOfMemory;
    const pages: [*]align(4096) u8 = @ptrFromInt(rc);
    // A huge page would make each stack cost 2 MiB on its first touch.
    _ = linux.madvise(pages, size, linux.MADV.NOHUGEPAGE);
    return pages;
}

pub fn release(pages: [*]align(4096) u8, size: usize) void {
    _ = linux.munmap(pages, size);
}

/// Gives the memory of these pages back; they read as zeroes afterwards.
pub fn discard(pages: [*]align(4096) u8, size: usize) void {
    _ = linux.madvise(pages, size, linux.MADV.DONTNEED);
}

// Linux 6.13, include/uapi/asm-generic/mman-common.h.
const madv_guard_install = 102;
const madv_guard_remove = 103;

var guard_way = std.atomic.Value(enum(u8) { unknown, madvise, mprotect }).init(.unknown);

/// Makes these pages fault on any access. MADV_GUARD_INSTALL splits no mapping; older kernels take
/// mprotect, which costs two mappings each. The system allows vm.max_map_count of them.
pub fn guard(pages: [*]align(4096) u8, size: usize) error{OutOfMemory}!void {
    if (guard_way.load(.monotonic) == .unknown) guard_way.store(probeGuard(), .monotonic);
    const rc = switch (guard_way.load(.monotonic)) {
        .madvise => linux.madvise(pages, size, madv_guard_install),
        else => linux.mprotect(pages, size, .{}),
    };
    if (linux.errno(rc) != .SUCCESS) return error.OutOfMemory;
}

/// Undoes `guard`. In a signal handler too.
pub fn unguard(pages: [*]align(4096) u8, size: usize) bool {
    const rc = switch (guard_way.load(.monotonic)) {
        .madvise => linux.madvise(pages, size, madv_guard_remove),
        else => linux.mprotect(pages, size, .{ .READ = true, .WRITE = true }),
    };
    return linux.errno(rc) == .SUCCESS;
}

/// Some emulators accept the advice and ignore it, so the answer alone is no proof: a guarded
/// page makes a system call that reads it fail with EFAULT.
fn probeGuard() @TypeOf(guard_way.raw) {
    const page = reserve(page_size) catch return .mprotect;
    defer release(page, page_size);
    if (linux.errno(linux.madvise(page, page_size, madv_guard_install)) != .SUCCESS)
        return .mprotect;
    var fds: [2]i32 = undefined;
    if (linux.errno(linux.pipe2(&fds, .{ .CLOEXEC = true })) != .SUCCESS) return .mprotect;
    defer for (fds) |fd| {
        _ = linux.close(fd);
    };
    const guarded = linux.errno(linux.write(fds[1], page, 1)) == .FAULT;
    return if (guarded) .madvise else .mprotect;
}

test "a guarded page cannot be read" {
    const pages = try reserve(4 * page_size);
    defer release(pages, 4 * page_size);
    try guard(pages, page_size);
    pages[page_size] = 1;
    defer {
        std.debug.assert(unguard(pages, page_size));
        pages[0] = 1;
    }
    try std.testing.expectEqual(.mprotect, blk: {
        // Whatever the way, the kernel must refuse to read the page.
        var fds: [2]i32 = undefined;
        _ = linux.pipe2(&fds, .{ .CLOEXEC = true });
        defer for (fds) |fd| {
            _ = linux.close(fd);
        };
        const e = linux.errno(linux.write(fds[1], pages, 1));
        break :blk if (e == .FAULT) @as(@TypeOf(guard_way.raw), .mprotect) else .unknown;
    });
}

/// Copies memory of the process's own that may not be there any more. False if it is not.
pub fn peek(address: usize, out: []u8) bool {
    if (address == 0) return false;
    const local = [_]std.posix.iovec{.{ .base = out.ptr, .len = out.len }};
    const remote = [_]std.posix.iovec_const{.{ .base = @ptrFromInt(address), .len = out.len }};
    return linux.process_vm_readv(linux.getpid(), &local, &remote, 0) == out.len;
}

extern "c" fn malloc_usable_size(block: ?*const anyopaque) usize;

/// Bytes of a block of the C library's allocator.
pub fn allocatedSize(block: *const anyopaque) usize {
    return malloc_usable_size(block);
}

/// Tells a fork's child from the process that it came from.
pub fn processId() i32 {
    return linux.getpid();
}

/// Of the calling thread.
pub fn threadId() i32 {
    return @intCast(linux.gettid());
}

extern "c" fn pthread_getattr_np(thread: std.c.pthread_t, attr: *std.c.pthread_attr_t) c_int;
extern "c" fn pthread_attr_getstack(
    attr: *const std.c.pthread_attr_t,
    lo: *usize,
    size: *usize,
) c_int;

/// The lowest address and the size of a thread's stack; null where the system does not know.
pub fn stackOf(thread: Thread) ?[2]usize {
    var attr: std.c.pthread_attr_t = undefined;
    if (pthread_getattr_np(thread.handle, &attr) != 0) return null;
    defer _ = std.c.pthread_attr_destroy(&attr);
    var lo: usize = 0;
    var size: usize = 0;
    return if (pthread_attr_getstack(&attr, &lo, &size) == 0) .{ lo, size } else null;
}

/// Whether the calling thread is the process's first, or of a fork's child, its only one at first.
pub fn onMainThread() bool {
    return linux.gettid() == linux.getpid();
}

/// CPU time that a thread of this process has had, ns; null if there is none of that number.
pub fn threadCpuTime(tid: i32) ?u64 {
    // CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED, include/linux/posix-timers_types.h.
    const id: i32 = @bitCast(~@as(u32, @bitCast(tid)) << 3 | 6);
    var time: linux.timespec = undefined;
    const clock: usize = @bitCast(@as(isize, id));
    const result = linux.syscall2(.clock_gettime, clock, @intFromPtr(&time));
    if (linux.errno(result) != .SUCCESS) return null;
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// All threads of this process; how many. Null if they cannot be read, or `out` is too small.
pub fn threadIds(out: []i32) ?usize {
    const rc = linux.open("/proc/self/task", .{ .DIRECTORY = true, .CLOEXEC = true }, 0);
    if (linux.errno(rc) != .SUCCESS) return null;
    const fd: i32 = @intCast(rc);
    defer _ = linux.close(fd);
    var n: usize = 0;
    var buffer: [4096]u8 align(8) = undefined;
    while (true) {
        const read = linux.getdents64(fd, &buffer, buffer.len);
        if (linux.errno(read) != .SUCCESS) return null;
        if (read == 0) return n;
        var at: usize = 0;
        while (at < read) {
            const entry: *align(1) linux.dirent64 = @ptrCast(&buffer[at]);
            const name = std.mem.span(@as([*:0]const u8, @ptrCast(&entry.name)));
            at += entry.reclen;
            if (name[0] == '.') continue;
            if (n == out.len) return null;
            out[n] = std.fmt.parseInt(i32, name, 10) catch return null;
            n += 1;
        }
    }
}

test "the threads of this process are known" {
    var tids: [256]i32 = undefined;
    const n = threadIds(&tids).?;
    try std.testing.expect(std.mem.indexOfScalar(i32, tids[0..n], threadId()) != null);
    try std.testing.expectEqual(null, threadIds(tids[0..0]));
    const T = struct {
        var tid: i32 = 0;
        var seen: @import("os.zig").Note = .{};
        var go_on: @import("os.zig").Note = .{};

        fn other(_: ?*anyopaque) void {
            tid = threadId();
            seen.wake();
            _ = go_on.sleep(null);
        }
    };
    const thread = try spawn(T.other, null, .{});
    _ = T.seen.sleep(null);
    const with = threadIds(&tids).?;
    try std.testing.expect(std.mem.indexOfScalar(i32, tids[0..with], T.tid) != null);
    T.go_on.wake();
    thread.join();
}

/// CPUs that the quota of this process's control group allows, rounded up; null without one. Reads
/// the limits that container runtimes set, of version 2 and version 1 of control groups.
pub fn cpuQuota() ?u32 {
    var buffer: [4096]u8 = undefined;
    const groups = readFile("/proc/self/cgroup", &buffer) orelse return null;
    var least: ?u32 = null;
    var lines = std.mem.splitScalar(u8, groups, '\n');
    while (lines.next()) |line| {
        var parts = std.mem.splitScalar(u8, line, ':');
        _ = parts.next() orelse continue;
        const controllers = parts.next() orelse continue;
        const path = std.mem.trimEnd(u8, parts.rest(), "/");
        const version_2 = controllers.len == 0;
        if (!version_2 and std.mem.indexOf(u8, controllers, "cpu") == null) continue;
        // Each group above limits it too, as far as this process can see them.
        var at: ?usize = path.len;
        while (at) |end| {
            const limit = if (version_2) quotaOf2(path[0..end]) else quotaOf1(path[0..end]);
            if (limit) |n| least = @min(n, least orelse n);
            at = if (end == 0) null else std.mem.lastIndexOfScalar(u8, path[0..end], '/') orelse 0;
        }
    }
    return least;
}

fn quotaOf2(group: []const u8) ?u32 {
    var path: [1024]u8 = undefined;
    var text: [64]u8 = undefined;
    const name = std.fmt.bufPrintSentinel(
        &path,
        "/sys/fs/cgroup{s}/cpu.max",
        .{group},
        0,
    ) catch return null;
    return quotaIn(readFile(name, &text) orelse return null);
}

/// "max 100000" or "50000 100000": quota and period in microseconds.
fn quotaIn(text: []const u8) ?u32 {
    var words = std.mem.tokenizeAny(u8, text, " \n");
    const quota = std.fmt.parseInt(u64, words.next() orelse return null, 10) catch return null;
    const period = std.fmt.parseInt(u64, words.next() orelse return null, 10) catch return null;
    if (quota == 0 or period == 0) return null;
    return @intCast(@min(
        std.math.divCeil(u64, quota, period) catch return null,
        std.math.maxInt(u32),
    ));
}

fn quotaOf1(group: []const u8) ?u32 {
    var values: [2]u64 = undefined;
    for ([_][]const u8{ "cpu.cfs_quota_us", "cpu.cfs_period_us" }, &values) |file, *value| {
        var path: [1024]u8 = undefined;
        var text: [64]u8 = undefined;
        const name =
            std.fmt.bufPrintSentinel(&path, "/sys/fs/cgroup/cpu{s}/{s}", .{ group, file }, 0) catch
                return null;
        const given = std.mem.trimEnd(u8, readFile(name, &text) orelse return null, "\n");
        value.* = std.fmt.parseInt(u64, given, 10) catch return null; // -1 is no limit
    }
    if (values[0] == 0 or values[1] == 0) return null;
    return @intCast(@min(
        std.math.divCeil(u64, values[0], values[1]) catch return null,
        std.math.maxInt(u32),
    ));
}

/// Whether the kernel makes its clock of the processor's counter.
pub fn trustsCounter() bool {
    var text: [32]u8 = undefined;
    const path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    return std.mem.eql(u8, readFile(path, &text) orelse return false, "tsc\n");
}

fn readFile(path: [*:0]const u8, buffer: []u8) ?[]const u8 {
    const fd = linux.open(path, .{ .CLOEXEC = true }, 0);
    if (linux.errno(fd) != .SUCCESS) return null;
    defer _ = linux.close(@intCast(fd));
    var len: usize = 0;
    while (len < buffer.len) {
        const n = linux.read(@intCast(fd), buffer.ptr + len, buffer.len - len);
        if (linux.errno(n) != .SUCCESS) return null;
        if (n == 0) break;
        len += n;
    }
    return buffer[0..len];
}

test "quotas are rounded up" {
    try std.testing.expectEqual(null, quotaIn("max 100000\n"));
    try std.testing.expectEqual(2, quotaIn("150000 100000\n"));
    try std.testing.expectEqual(1, quotaIn("50000 100000\n"));
    try std.testing.expectEqual(null, quotaIn("nonsense"));
}
