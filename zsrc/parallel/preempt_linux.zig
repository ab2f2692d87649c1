//! The signal by which native goroutines are preempted on Linux, and its frame.
const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;
const c = std.c;
const os = @import("../os/os.zig");
const lane = @import("lane.zig");
const switching = lane.switching;
const Interrupted = @import("interrupt.zig").Interrupted;

pub const name = "signal";

/// Real-time signals without a meaning, from the top: golibx takes the first that the program has
/// no handler for. 64 and 63 are used by other runtimes, 62 by golibx itself (os/posix.zig).
const candidates = [_]u8{ 61, 60, 59, 58 };

var number: u8 = 0;
/// This process, which the C library no longer keeps.
var own_pid: linux.pid_t = 0;
var own_uid: linux.uid_t = 0;
var callback: ?*const fn (*lane.M, Interrupted) bool = null;

/// Offsets in the kernel's struct ucontext (arch/*/include/uapi/asm/ucontext.h and sigcontext.h).
const frame = switch (builtin.cpu.arch) {
    .x86_64 => .{ .stack = 16, .sp = 160, .pc = 168 },
    .aarch64 => .{ .stack = 16, .sp = 432, .pc = 440 },
    else => unreachable,
};

fn word(uc: *anyopaque, offset: usize) usize {
    return @as(*const usize, @ptrFromInt(@intFromPtr(uc) + offset)).*;
}

pub fn install(function: *const fn (*lane.M, Interrupted) bool) void {
    callback = function;
    own_pid = linux.getpid();
    own_uid = linux.getuid();
    for (candidates) |each| {
        const sig: c.SIG = @fromBackingInt(@intCast(each));
        var present: c.Sigaction = undefined;
        if (c.sigaction(sig, null, &present) != 0) continue;
        if (present.handler.handler != c.SIG.DFL) continue;
        var action: c.Sigaction = std.mem.zeroes(c.Sigaction);
        action.handler = .{ .sigaction = @ptrCast(&handler) };
        // On the goroutine's stack: no SA_ONSTACK. It may leave the handler behind on another
        // thread, so the signal must not stay blocked on this one: SA_NODEFER.
        action.flags = c.SA.SIGINFO | c.SA.RESTART | c.SA.NODEFER;
        if (c.sigaction(sig, &action, null) != 0) continue;
        number = each;
        return;
    }
}

pub fn signalNumber() u8 {
    return number;
}

pub fn remove() void {
    if (number == 0) return;
    var action: c.Sigaction = std.mem.zeroes(c.Sigaction);
    // One that is still on its way must not end the process.
    action.handler = .{ .handler = c.SIG.IGN };
    _ = c.sigaction(@fromBackingInt(@intCast(number)), &action, null);
    action.handler = .{ .handler = c.SIG.DFL };
    _ = c.sigaction(@fromBackingInt(@intCast(number)), &action, null);
    number = 0;
}

/// Unblocks the signal, and gives the thread an alternate stack for faults.
pub fn enterThread(m: *lane.M) void {
    @atomicStore(i32, &m.tid, os.threadId(), .monotonic);
    if (lane.gpa.alloc(u8, os.FaultStack.size)) |memory| {
        m.fault_memory = memory;
        m.fault.enter(memory);
    } else |_| {}
    if (number == 0) return;
    var set: c.sigset_t = undefined;
    _ = c.sigemptyset(&set);
    _ = c.sigaddset(&set, @fromBackingInt(@intCast(number)));
    var before: c.sigset_t = undefined;
    _ = c.pthread_sigmask(c.SIG.UNBLOCK, &set, &before);
}

pub fn leaveThread(m: *lane.M) void {
    if (m.fault_memory.len == 0) return;
    m.fault.leave();
    lane.gpa.free(m.fault_memory);
    m.fault_memory = &.{};
}

/// The M comes with the signal: in the handler a thread-local may not be read, since after a dlopen
/// the first to read one can need malloc, in which the handler may have interrupted the thread.
pub fn signal(m: *lane.M) bool {
    if (number == 0 or m.tid == 0) return false;
    var info: Info = .{ .signo = number, .pid = own_pid, .uid = own_uid, .value = m };
    const rc = linux.syscall4(
        .rt_tgsigqueueinfo,
        @intCast(own_pid),
        @intCast(m.tid),
        number,
        @intFromPtr(&info),
    );
    return linux.errno(rc) == .SUCCESS;
}

/// Has the thread of `m`, which sleeps, wake up on this CPU once the caller has left it. Left to
/// itself the kernel may put it behind another hog while this CPU idles, or have it drive the
/// caller out before that sleeps: it is finished off on another CPU then, in the way of a hog, and
/// two end up on one CPU.
pub fn bringHere(m: *lane.M) void {
    if (!m.patient and policyOf(m.tid) == other) m.patient = setPolicy(m.tid, batch);
    var cpu: u32 = 0;
    if (linux.errno(linux.syscall3(.getcpu, @intFromPtr(&cpu), 0, 0)) != .SUCCESS) return;
    const size = @sizeOf(linux.cpu_set_t);
    // As many bytes as the kernel has CPUs for are written; the rest of the set stays empty.
    m.affinity = @splat(0);
    const got = linux.syscall3(.sched_getaffinity, @intCast(m.tid), size, @intFromPtr(&m.affinity));
    if (linux.errno(got) != .SUCCESS) return;
    var here: linux.cpu_set_t = @splat(0);
    const bits = @bitSizeOf(usize);
    if (cpu >= here.len * bits or m.affinity[cpu / bits] >> @intCast(cpu % bits) & 1 == 0) return;
    here[cpu / bits] = @as(usize, 1) << @intCast(cpu % bits);
    const set = linux.syscall3(.sched_setaffinity, @intCast(m.tid), size, @intFromPtr(&here));
    m.brought = linux.errno(set) == .SUCCESS;
}

/// On its own thread: it may go where it was allowed before.
pub fn letMove(m: *lane.M) void {
    m.brought = false;
    const size = @sizeOf(linux.cpu_set_t);
    _ = linux.syscall3(.sched_setaffinity, 0, size, @intFromPtr(&m.affinity));
}

/// On its own thread.
pub fn rest(m: *lane.M) void {
    m.patient = false;
    _ = setPolicy(0, other);
}

/// Scheduling policies of the kernel (include/uapi/linux/sched.h). A thread with `batch` that wakes
/// up does not take the CPU from one with `other`. Neither takes a privilege.
const other = 0;
const batch = 3;

fn policyOf(tid: i32) usize {
    return linux.syscall1(.sched_getscheduler, @intCast(tid));
}

fn setPolicy(tid: i32, policy: usize) bool {
    const priority: c_int = 0;
    const rc = linux.syscall3(.sched_setscheduler, @intCast(tid), policy, @intFromPtr(&priority));
    return linux.errno(rc) == .SUCCESS;
}

/// The kernel's siginfo_t of a queued signal (include/uapi/asm-generic/siginfo.h).
const Info = extern struct {
    signo: i32,
    errno: i32 = 0,
    code: i32 = queued,
    padding: i32 = 0,
    pid: i32,
    uid: u32,
    value: ?*lane.M,
    rest: [12]u64 = @splat(0),

    const queued = -1; // SI_QUEUE

    comptime {
        std.debug.assert(@sizeOf(Info) == 128);
    }
};

fn handler(_: c.SIG, info: *const Info, raw: ?*anyopaque) callconv(.c) void {
    if (info.code != Info.queued or info.pid != own_pid) return; // not one of ours
    const m = info.value orelse return;
    const errno = os.net.getErrno();
    const uc = raw.?;
    const moved = callback.?(m, .{ .pc = word(uc, frame.pc), .sp = word(uc, frame.sp) });
    if (moved) useStackOfThread(uc);
    os.net.setErrno(errno);
}

/// The return from the handler sets the thread's alternate stack to what the frame says: that has
/// to be this thread's.
fn useStackOfThread(uc: *anyopaque) void {
    const stack: *c.stack_t = @ptrFromInt(@intFromPtr(uc) + frame.stack);
    const m = switching.current().?.m.?;
    if (m.fault_memory.len == 0) {
        stack.flags = c.SS.DISABLE;
        return;
    }
    stack.* = .{ .sp = m.fault_memory.ptr, .flags = 0, .size = m.fault_memory.len };
}

test "a signal's frame tells code and stack, and holds the alternate stack" {
    const T = struct {
        var seen: Interrupted = undefined;
        var stack: c.stack_t = undefined;
        var before: c.stack_t = undefined;

        fn note(_: c.SIG, _: *const c.siginfo_t, raw: ?*anyopaque) callconv(.c) void {
            seen = .{ .pc = word(raw.?, frame.pc), .sp = word(raw.?, frame.sp) };
            stack = @as(*const c.stack_t, @ptrFromInt(@intFromPtr(raw.?) + frame.stack)).*;
        }
    };
    const sig: c.SIG = @fromBackingInt(@intCast(candidates[0]));
    var action: c.Sigaction = std.mem.zeroes(c.Sigaction);
    action.handler = .{ .sigaction = T.note };
    action.flags = c.SA.SIGINFO;
    var old: c.Sigaction = undefined;
    _ = c.sigaction(sig, &action, &old);
    defer _ = c.sigaction(sig, &old, null);
    var memory: [os.FaultStack.size]u8 align(16) = undefined;
    var alternate: os.FaultStack = .{};
    alternate.enter(&memory);
    defer alternate.leave();

    // It comes at the return from this system call, which is an instruction of this program.
    const here = @import("../arch/arch.zig").stackPointer();
    _ = linux.tgkill(linux.getpid(), linux.gettid(), sig);
    try std.testing.expect(T.seen.sp <= here and here - T.seen.sp < 4096);
    try std.testing.expectEqual(@intFromPtr(&memory), @intFromPtr(T.stack.sp));
    try std.testing.expectEqual(memory.len, T.stack.size);
    const procs = @import("procs.zig");
    var ranges: [16]@import("text.zig").Range = undefined;
    for (ranges[0..procs.moduleText(@intFromPtr(&install), &ranges)]) |each| {
        if (each.start <= T.seen.pc and T.seen.pc < each.end) return;
    }
    return error.NotInThisProgram;
}
