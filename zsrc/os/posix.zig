//! What Linux and macOS share of the os layer: pthreads, clocks, dlsym, thread-specific slots and
//! the fault handler.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("os.zig");
const c = std.c;

pub const Thread = struct {
    handle: c.pthread_t,

    pub fn join(t: Thread) void {
        _ = c.pthread_join(t.handle, null);
    }

    pub fn detach(t: Thread) void {
        _ = c.pthread_detach(t.handle);
    }
};

const Start = struct { function: *const fn (?*anyopaque) void, arg: ?*anyopaque };

fn threadMain(raw: ?*anyopaque) callconv(.c) ?*anyopaque {
    const start: *Start = @ptrCast(@alignCast(raw.?));
    const s = start.*;
    c.free(start);
    s.function(s.arg);
    return null;
}

pub const SpawnError = error{ OutOfMemory, ThreadLimit };

/// The signals that a thread blocks.
pub const SignalMask = c.sigset_t;

/// That of the calling thread.
pub fn signalMask() SignalMask {
    var none: SignalMask = undefined;
    _ = c.sigemptyset(&none);
    var present: SignalMask = undefined;
    _ = c.pthread_sigmask(c.SIG.BLOCK, &none, &present);
    return present;
}

fn setSignalMask(mask: SignalMask) SignalMask {
    var before: SignalMask = undefined;
    _ = c.pthread_sigmask(c.SIG.SETMASK, &mask, &before);
    return before;
}

/// All but those about the thread's own instructions.
fn allSignals() SignalMask {
    var all: SignalMask = undefined;
    _ = c.sigfillset(&all);
    for ([_]c.SIG{ .SEGV, .BUS, .FPE, .ILL, .TRAP }) |sig| _ = c.sigdelset(&all, sig);
    return all;
}

/// Starts a thread.
pub fn spawn(
    function: *const fn (?*anyopaque) void,
    arg: ?*anyopaque,
    options: os.SpawnOptions,
) SpawnError!Thread {
    const raw = c.malloc(@sizeOf(Start)) orelse return error.OutOfMemory;
    const start: *Start = @ptrCast(@alignCast(raw));
    start.* = .{ .function = function, .arg = arg };
    var attr: c.pthread_attr_t = undefined;
    _ = c.pthread_attr_init(&attr);
    defer _ = c.pthread_attr_destroy(&attr);
    _ = c.pthread_attr_setstacksize(&attr, options.stack_size);
    const before = switch (options.signals) {
        .inherited => null,
        .blocked => setSignalMask(allSignals()),
        .mask => |mask| setSignalMask(mask),
    };
    defer if (before) |mask| {
        _ = setSignalMask(mask);
    };
    var handle: c.pthread_t = undefined;
    if (c.pthread_create(&handle, &attr, threadMain, start) != .SUCCESS) {
        c.free(start);
        return error.ThreadLimit;
    }
    return .{ .handle = handle };
}

pub fn thisThread() Thread {
    return .{ .handle = c.pthread_self() };
}

/// The first is Go's choice (runtime/signal_unix.go): debuggers pass it on, libc has no use for it,
/// a process that knows nothing of it ignores it. Where the program uses it, Linux has others that
/// mean nothing, numbered up to 64.
const interrupt_signals = [_]c.SIG{.URG} ++
    if (builtin.os.tag == .linux) [_]c.SIG{@fromBackingInt(@intCast(62))} else [_]c.SIG{};

/// From here on `interrupt` has an effect, by those signals that the program has no use for.
pub fn allowInterrupts(allow: bool) void {
    const ours: c.Sigaction.handler_fn = @ptrCast(&onInterrupt);
    const from = if (allow) c.SIG.DFL else ours;
    for (interrupt_signals) |sig| {
        if (handlerOf(sig) != from) continue;
        var action: c.Sigaction = std.mem.zeroes(c.Sigaction);
        action.handler = .{ .handler = if (allow) ours else c.SIG.DFL };
        // Without SA_RESTART: the point is that the call ends. And no other signal comes before the
        // thread has the mask that it was asked to have: one that the mask blocks may be pending.
        action.mask = allSignals();
        action.flags = if (allow) c.SA.ONSTACK | c.SA.SIGINFO else c.SA.ONSTACK;
        _ = c.sigaction(sig, &action, null);
    }
}

/// Ends a system call that blocks the thread with EINTR.
pub fn interrupt(t: Thread) void {
    for (interrupt_signals) |sig| {
        if (!isInterrupt(sig)) continue;
        _ = c.pthread_kill(t.handle, sig);
        return;
    }
}

fn isInterrupt(sig: c.SIG) bool {
    return handlerOf(sig) == @as(c.Sigaction.handler_fn, @ptrCast(&onInterrupt));
}

/// Sends a signal to a thread.
pub fn signalThread(t: Thread, number: u8) void {
    _ = c.pthread_kill(t.handle, @fromBackingInt(@intCast(number)));
}

fn handlerOf(sig: c.SIG) ?c.Sigaction.handler_fn {
    var present: c.Sigaction = undefined;
    if (c.sigaction(sig, null, &present) != 0) return null;
    return present.handler.handler;
}

/// When it returns the thread has the mask that it was asked to have, if it was.
fn onInterrupt(_: c.SIG, _: *anyopaque, uc: *anyopaque) callconv(.c) void {
    if (builtin.os.tag != .linux) return;
    const own = @intFromPtr(c.pthread_self());
    for (asked[0..asked_count.load(.acquire)]) |*each| {
        if (each.load(.acquire) != own) continue;
        const mask: *align(1) u64 = @ptrFromInt(@intFromPtr(uc) + mask_offset);
        mask.* = asked_mask;
        each.store(0, .release);
    }
}

// ---- the masks of other threads ----
//
// A thread can only change its own. In the handler of a signal that is the one which it goes on
// with: the kernel takes it from the frame that the handler returns to.

/// Of uc_sigmask in the kernel's struct ucontext (arch/*/include/uapi/asm/ucontext.h), which has 64
/// signals.
const mask_offset = switch (builtin.cpu.arch) {
    .x86_64 => 296,
    .aarch64 => 40,
    else => 0,
};
var asked_mask: u64 = 0;
/// The threads that the signal is meant for, each until it has got it.
var asked: [256]std.atomic.Value(usize) = undefined;
var asked_count: std.atomic.Value(usize) = .init(0);
const answer_turns = 10_000;

/// One caller at a time. False if there is no room for another: then `awaitMasks` first.
pub fn askForMask(t: Thread, mask: SignalMask) bool {
    const n = asked_count.load(.monotonic);
    if (n == asked.len) return false;
    asked_mask = @bitCast(std.mem.asBytes(&mask)[0..8].*);
    asked[n] = .init(@intFromPtr(t.handle));
    asked_count.store(n + 1, .release);
    interrupt(t);
    return true;
}

/// Returns when those that were asked have it. One that the kernel keeps for long is not waited
/// for: it has the last mask that was asked for when it comes back, before it does anything, since
/// the kernel begins with the signals that were sent to the thread itself.
pub fn awaitMasks() void {
    var late = false;
    for (asked[0..asked_count.load(.monotonic)]) |*each| {
        var turns: u32 = 0;
        while (each.load(.acquire) != 0 and turns < answer_turns) : (turns += 1)
            _ = c.sched_yield();
        late = late or each.load(.acquire) != 0;
    }
    if (!late) asked_count.store(0, .release);
}

test "a thread that comes back late has the mask that it was asked to have" {
    const Late = struct {
        var state: std.atomic.Value(u32) = .init(0);
        var blocked = false;

        fn main(_: ?*anyopaque) void {
            state.store(1, .release);
            while (state.load(.acquire) == 1) _ = c.sched_yield();
            var none: SignalMask = undefined;
            _ = c.sigemptyset(&none);
            _ = setSignalMask(none); // what was sent arrives
            const mask = signalMask();
            blocked = c.sigismember(&mask, .USR1) == 1;
        }
    };
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    allowInterrupts(true);
    defer allowInterrupts(false);
    const thread = try spawn(Late.main, null, .{ .signals = .blocked });
    while (Late.state.load(.acquire) == 0) _ = c.sched_yield();
    var mask: SignalMask = undefined;
    _ = c.sigemptyset(&mask);
    _ = c.sigaddset(&mask, .USR1);
    try std.testing.expect(askForMask(thread, mask));
    awaitMasks();
    Late.state.store(2, .release);
    thread.join();
    try std.testing.expect(Late.blocked);
    awaitMasks();
    try std.testing.expectEqual(0, asked_count.raw);
}

/// Has the calling thread let through what `interrupt` sends; the mask that it has then.
pub fn letInterruptsThrough() SignalMask {
    var ours: SignalMask = undefined;
    _ = c.sigemptyset(&ours);
    for (interrupt_signals) |sig| {
        if (isInterrupt(sig)) _ = c.sigaddset(&ours, sig);
    }
    var before: SignalMask = undefined;
    _ = c.pthread_sigmask(c.SIG.UNBLOCK, &ours, &before);
    return signalMask();
}

/// Of the calling thread.
pub fn setMask(mask: SignalMask) void {
    _ = setSignalMask(mask);
}

pub fn sameMask(a: *const SignalMask, b: *const SignalMask) bool {
    return std.mem.eql(u8, std.mem.asBytes(a)[0..8], std.mem.asBytes(b)[0..8]);
}

/// Ends the calling thread from whatever stack it is on.
pub fn threadExitHere() noreturn {
    c.pthread_exit(null);
}

extern "c" fn pthread_atfork(
    prepare: ?*const fn () callconv(.c) void,
    parent: ?*const fn () callconv(.c) void,
    child: ?*const fn () callconv(.c) void,
) c_int;

/// Has `child` called in the child of each fork before fork() returns there. False without memory.
/// vfork() and posix_spawn() are not forks.
pub fn atFork(child: *const fn () callconv(.c) void) bool {
    return pthread_atfork(null, null, child) == 0;
}

/// As the C library does, with all that was registered for it.
pub fn exitProcess(status: u8) noreturn {
    c.exit(status);
}

/// Ends the process as SIGINT does by default.
pub fn endByInterrupt() noreturn {
    var action: c.Sigaction = std.mem.zeroes(c.Sigaction);
    action.handler = .{ .handler = c.SIG.DFL };
    _ = c.sigaction(.INT, &action, null);
    _ = c.raise(.INT);
    c.exit(130);
}

/// Monotonic time in nanoseconds.
pub fn nanotime() u64 {
    var ts: c.timespec = undefined;
    _ = c.clock_gettime(.MONOTONIC, &ts);
    return @as(u64, @intCast(ts.sec)) * std.time.ns_per_s + @as(u64, @intCast(ts.nsec));
}

pub fn sleepNs(ns: u64) void {
    const ts: c.timespec = .{
        .sec = @intCast(ns / std.time.ns_per_s),
        .nsec = @intCast(ns % std.time.ns_per_s),
    };
    _ = c.nanosleep(&ts, null);
}

/// CPUs this process may run on.
pub fn cpuCount() usize {
    return std.Thread.getCpuCount() catch 1;
}

/// Makes reserved pages, lowest address first, into a stack that a thread may be switched to. For
/// stacks that are new or were discarded. Here every page becomes memory by being touched; only
/// valgrind has to be told, which otherwise takes a switch for a wild jump of the stack pointer.
pub fn openStack(lo: usize, hi: usize) error{OutOfMemory}!void {
    _ = std.valgrind.stackRegister(@as([*]u8, @ptrFromInt(lo))[0 .. hi - lo]);
}

/// A thread-specific slot that other code created.
pub const Slot = c.pthread_key_t;

pub fn slotGet(slot: Slot) ?*anyopaque {
    return c.pthread_getspecific(slot);
}

pub fn slotSet(slot: Slot, value: ?*anyopaque) void {
    _ = c.pthread_setspecific(slot, value);
}

// Linux has PTHREAD_KEYS_MAX, 1024, and answers null for a key that does not exist. macOS gives out
// the keys 256 to 767, the lower ones are the system's own; it reads any key unchecked.
const first_key: Slot = if (builtin.os.tag == .macos) 256 else 0;
const end_key: Slot = if (builtin.os.tag == .macos) 768 else 1024;

/// The slot that holds `value` on this thread.
pub fn findSlot(value: *anyopaque) ?Slot {
    var key = first_key;
    while (key < end_key) : (key += 1) {
        if (c.pthread_getspecific(key) == value) return key;
    }
    return null;
}

/// The address of a symbol of the process, or null. Rebinding nothing, it is the way to functions
/// that only some Python versions export.
pub fn symbol(name: [*:0]const u8) ?*anyopaque {
    const default: ?*anyopaque = if (builtin.os.tag == .macos)
        @ptrFromInt(@as(usize, @bitCast(@as(isize, -2))))
    else
        null;
    return c.dlsym(default, name);
}

pub fn writeStderr(bytes: []const u8) void {
    var rest = bytes;
    while (rest.len > 0) {
        const n = c.write(2, rest.ptr, rest.len);
        if (n <= 0) return;
        rest = rest[@intCast(n)..];
    }
}

/// The alternate stack on which this thread's fault handler runs: a goroutine that overflowed its
/// stack has none left. Kept in the thread's M.
pub const FaultStack = struct {
    memory: []u8 = &.{},
    previous: c.stack_t = undefined,

    pub const size = 64 * 1024;

    /// Installs the alternate stack for the calling thread. `memory` must outlive `leave`.
    pub fn enter(s: *FaultStack, memory: []u8) void {
        s.memory = memory;
        var stack: c.stack_t = undefined;
        stack.sp = memory.ptr;
        stack.size = @intCast(memory.len); // signed on macOS
        stack.flags = 0;
        _ = c.sigaltstack(&stack, &s.previous);
    }

    /// Puts back what the thread had.
    pub fn leave(s: *FaultStack) void {
        _ = c.sigaltstack(&s.previous, null);
    }
};

/// What becomes of a fault that is none of golibx's business: the disposition that the program had
/// before golibx came, and the first that there ever was.
const Chain = struct {
    sig: c.SIG,
    next: c.Sigaction = undefined,
    last: ?c.Sigaction = null,
};
var chains = [_]Chain{ .{ .sig = .SEGV }, .{ .sig = .BUS } };
var fault_callback: ?os.FaultCallback = null;
/// This thread passes a fault on. A handler that was installed after golibx's once, and before it
/// now, passes it back.
threadlocal var passing_on = false;

noinline fn passingOn() *bool {
    return &passing_on;
}

/// Calls `callback` on the alternate stack when an instruction of this process causes a memory
/// fault. Unless it says that the instruction can go on, the disposition that was there before gets
/// the signal, as if golibx had not been there. It also gets a signal that another process or
/// thread sent.
pub fn handleFault(callback: ?os.FaultCallback) void {
    fault_callback = callback;
    for (&chains) |*chain| {
        var present: c.Sigaction = undefined;
        if (c.sigaction(chain.sig, null, &present) != 0) continue;
        const ours = isOurs(&present);
        if (callback == null) {
            // Unless the program has put its own in place, which may call ours for all we know.
            if (ours) _ = c.sigaction(chain.sig, &chain.next, null);
        } else if (!ours) {
            chain.next = present;
            if (chain.last == null) chain.last = present;
            var action: c.Sigaction = std.mem.zeroes(c.Sigaction);
            action.handler = .{ .sigaction = onFault };
            action.flags = c.SA.SIGINFO | c.SA.ONSTACK | c.SA.NODEFER;
            _ = c.sigaction(chain.sig, &action, null);
        }
    }
}

fn onFault(sig: c.SIG, info: *const c.siginfo_t, context: ?*anyopaque) callconv(.c) void {
    const address: usize = if (builtin.os.tag == .macos)
        @intFromPtr(info.addr)
    else
        @intFromPtr(info.fields.sigfault.addr);
    const sent = wasSent(info);
    if (!sent) {
        if (fault_callback) |callback| if (callback(address)) return;
    }
    for (&chains) |*chain| {
        if (chain.sig == sig) passOn(chain, info, context, sent);
    }
}

/// By kill(), a timer or the like, rather than the kernel at an instruction.
fn wasSent(info: *const c.siginfo_t) bool {
    // Linux: SI_USER is 0, the others are negative. macOS: SI_USER, SI_QUEUE … from 0x10001 on.
    return if (builtin.os.tag == .macos) info.code >= 0x10001 else info.code <= 0;
}

fn passOn(chain: *Chain, info: *const c.siginfo_t, context: ?*anyopaque, sent: bool) void {
    const passing = passingOn();
    const again = passing.*;
    var to = if (again) chain.last.? else chain.next;
    const handler = to.handler.handler;
    if (handler == c.SIG.IGN and sent) return;
    if (handler == c.SIG.DFL or handler == c.SIG.IGN or (again and isOurs(&to))) {
        // Not at once, which would be here, but at the instruction: a core dump has to show that.
        to.handler = .{ .handler = c.SIG.DFL };
        _ = c.sigaction(chain.sig, &to, null);
        if (sent) _ = c.pthread_kill(c.pthread_self(), chain.sig);
        return;
    }
    if (to.flags & c.SA.RESETHAND != 0 and !again) chain.next.handler = .{ .handler = c.SIG.DFL };
    var blocked = to.mask;
    if (to.flags & c.SA.NODEFER == 0) _ = c.sigaddset(&blocked, chain.sig);
    var before: SignalMask = undefined;
    _ = c.pthread_sigmask(c.SIG.BLOCK, &blocked, &before);
    passing.* = true;
    if (to.flags & c.SA.SIGINFO != 0)
        to.handler.sigaction.?(chain.sig, info, context)
    else
        handler.?(chain.sig);
    passing.* = again;
    _ = setSignalMask(before);
}

fn isOurs(action: *const c.Sigaction) bool {
    return action.handler.sigaction == @as(?c.Sigaction.sigaction_fn, onFault);
}

// ---- signals that goroutines wait for ----

const most_signals = 65;
var taken: [most_signals]?c.Sigaction = @splat(null);
/// Where the handler writes their numbers; -1 for nowhere.
var signal_fd = std.atomic.Value(c_int).init(-1);

/// Reads all that signals have written to `from`, and writes to `to` what are numbers of signals,
/// but for `own`; -1: nowhere. Neither blocks. What the last write said that failed.
pub fn passSignals(from: c_int, to: c_int, own: c_int) c.E {
    var failed: c.E = .SUCCESS;
    var bytes: [64]u8 = undefined;
    while (true) {
        const n = c.read(from, &bytes, bytes.len);
        if (n <= 0) return failed;
        if (to < 0) continue;
        for (bytes[0..@intCast(n)]) |*byte| {
            if (byte.* == 0 or byte.* == own) continue;
            if (c.write(to, byte[0..1], 1) < 0) failed = c.errno(-1);
        }
    }
}

pub fn writeSignals(fd: c_int) void {
    signal_fd.store(fd, .seq_cst);
}

/// What a signal does from now on.
pub const Disposition = enum { as_before, written, ignored };

/// False if the system refuses that, or there is no such signal.
pub fn takeSignal(number: usize, disposition: Disposition) bool {
    if (number == 0 or number >= most_signals) return false;
    const sig: c.SIG = @fromBackingInt(@intCast(number));
    if (disposition == .as_before) {
        const before = taken[number] orelse return true;
        taken[number] = null;
        var present: c.Sigaction = undefined;
        if (c.sigaction(sig, null, &present) != 0) return false;
        const handler = present.handler.handler;
        // Unless other code has put another in place.
        if (handler == onWatched or handler == c.SIG.IGN) _ = c.sigaction(sig, &before, null);
        return true;
    }
    var action: c.Sigaction = std.mem.zeroes(c.Sigaction);
    action.handler = .{ .handler = if (disposition == .written) onWatched else c.SIG.IGN };
    action.flags = c.SA.ONSTACK | c.SA.RESTART;
    var before: c.Sigaction = undefined;
    if (c.sigaction(sig, &action, &before) != 0) return false;
    if (taken[number] == null) taken[number] = before;
    return true;
}

/// On any thread, at any point.
fn onWatched(sig: c.SIG) callconv(.c) void {
    const before = c._errno().*;
    const byte: [1]u8 = .{@intCast(@backingInt(sig))};
    const fd = signal_fd.load(.seq_cst);
    // Where the socket is full, thousands of signals wait to be read.
    if (fd >= 0) _ = c.write(fd, &byte, 1);
    c._errno().* = before;
}
