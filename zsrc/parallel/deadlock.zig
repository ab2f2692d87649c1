//! "All goroutines are asleep": nothing in the process can ever wake one. As Go's checkdead
//! (runtime/proc.go), but asked for by the program's configuration, and by sysmon instead of by
//! every thread that stops: a wrong report would end a program that is well, so all of this is
//! proven first.
//!  - No Python: its threads and its lane wake native goroutines.
//!  - No other thread: each thread of the process is one of ours, or waits in golibx_run() for its
//!    own goroutine. A thread that blocks in another call of golibx is a stranger too.
//!  - All Ps are idle, no timer is set, and no goroutine waits for a descriptor.
//!  - Every goroutine waits; one in a system call, or stopped with its thread, does not.
//! None of this can change by itself. That it was true at one time is known from the counters,
//! which were the same before and after the look (`stamp`).
//!
//! What it cannot see: a handler of a signal that would wake a goroutine, which golibx.h does not
//! allow.
const std = @import("std");
const os = @import("../os/os.zig");
const env = @import("env.zig");
const lane = @import("lane.zig");
const list = @import("list.zig");
const netpoll = @import("netpoll.zig");

const PStatus = @import("types.zig").PStatus;

/// As Go's.
const exit_code = 2;
/// How long a program that might be stuck waits for the next look.
pub const recheck_ns = 100 * std.time.ns_per_ms;
const most_threads = 4096;
const most_lines = 100;

/// The extension module has been loaded.
pub var python: std.atomic.Value(bool) = .init(false);

/// A call of golibx_run(), on the stack of its caller.
pub const Run = struct {
    /// The goroutine that it waits for runs `body(arg)`, which calls `function`.
    function: usize,
    body: usize = 0,
    arg: ?*const anyopaque = null,
    /// The thread that waits, 0 for a goroutine. Set once it does nothing else.
    tid: i32 = 0,
    next: ?*Run = null,
};

var runs: ?*Run = null;
var runs_lock: env.SpinLock = .{};

pub fn runBegins(r: *Run, body: *const anyopaque, arg: *const anyopaque) void {
    r.body = @intFromPtr(body);
    r.arg = arg;
    runs_lock.lock();
    defer runs_lock.unlock();
    r.next = runs;
    runs = r;
}

/// By the thread, which only waits from here on. The Run is there as long as its caller is.
pub fn runWaits(r: *Run) void {
    runs_lock.lock();
    defer runs_lock.unlock();
    r.tid = os.threadId();
}

/// By the goroutine, before it wakes the thread.
pub fn runEnds(r: *Run) void {
    runs_lock.lock();
    defer runs_lock.unlock();
    var link = &runs;
    while (link.*) |each| : (link = &each.next) {
        if (each != r) continue;
        link.* = r.next;
        return;
    }
}

/// sysmon's, when all Ps were idle a moment ago. Does not return from a deadlock.
pub fn look() void {
    if (python.load(.monotonic)) return;
    const before = stamp() orelse return;
    const goroutines = lane.switching.goroutineCount();
    if (goroutines == 0 or netpoll.mayWake() or !onlyOurThreads() or asleep() != goroutines) return;
    if (stamp() != before) return;
    report();
    std.c._exit(exit_code);
}

/// Null if something runs, or will by itself. Otherwise the same as long as nothing has run.
fn stamp() ?u64 {
    const s = &lane.sched;
    s.lock.lock();
    defer s.lock.unlock();
    const live = s.gomaxprocs.load(.monotonic);
    if (s.stopping.load(.monotonic) or s.npidle.load(.monotonic) != live or s.queue.list.len > 0)
        return null;
    var sum: u64 = lane.foreign_spawns.load(.monotonic);
    for (s.procs(), 0..) |each, i| {
        const p = each.?;
        if (p.status.load(.acquire) != if (i < live) PStatus.idle else PStatus.dead) return null;
        if (!p.runq.isEmpty() or p.timers.len.load(.monotonic) > 0) return null;
        sum +%= p.schedtick.load(.monotonic);
        sum +%= p.syscalltick.load(.monotonic);
        sum +%= @atomicLoad(u64, &p.counters.switches, .monotonic);
    }
    return sum;
}

/// How many goroutines wait; 0 if one does something else.
fn asleep() u64 {
    const a = &lane.arena;
    a.lock.lock();
    const pieces = if (a.has_holes) 0 else a.fresh;
    a.lock.unlock();
    var n: u64 = 0;
    for (0..pieces) |i| switch (a.at(i).status.load(.acquire)) {
        .idle, .dead => {},
        .waiting => n += 1,
        .runnable, .running, .syscall, .preempted => return 0,
    };
    return n;
}

fn onlyOurThreads() bool {
    const T = struct {
        var tids: [most_threads]i32 = undefined;
    };
    const n = os.threadIds(&T.tids) orelse return false;
    const own = os.threadId();
    for (T.tids[0..n]) |tid| {
        if (tid != own and !lane.threads.isOwn(tid) and !waitsForRun(tid)) return false;
    }
    return true;
}

fn waitsForRun(tid: i32) bool {
    runs_lock.lock();
    defer runs_lock.unlock();
    var it = runs;
    while (it) |r| : (it = r.next) {
        if (r.tid == tid) return true;
    }
    return false;
}

// ---- the report ----

fn report() void {
    os.writeStderr("golibx: all goroutines are asleep: deadlock\n");
    var lines: usize = 0;
    var unsaid: usize = 0;
    var goroutines: list.Iterator = .{};
    while (goroutines.next()) |g| {
        if (lines < most_lines) describe(g) else unsaid += 1;
        lines += 1;
    }
    if (unsaid > 0) print("and {d} more\n", .{unsaid});
}

fn describe(g: list.Entry) void {
    var buffer: [256]u8 = undefined;
    const tied = if (g.locked) ", locked to its thread" else "";
    print("goroutine {d} [{s}{s}]: {s}\n", .{ g.id, g.state(), tied, nameOf(startOf(g), &buffer) });
}

fn print(comptime format: []const u8, args: anytype) void {
    var line: [400]u8 = undefined;
    os.writeStderr(std.fmt.bufPrint(&line, format, args) catch return);
}

fn startOf(g: list.Entry) usize {
    runs_lock.lock();
    defer runs_lock.unlock();
    var it = runs;
    while (it) |r| : (it = r.next) {
        if (r.body == g.function and @intFromPtr(r.arg) == g.arg) return r.function;
    }
    return g.function;
}

/// Its name, if it is exported, or its place in the file, for addr2line.
fn nameOf(address: usize, buffer: []u8) []const u8 {
    return find(address, buffer) orelse std.fmt.bufPrint(buffer, "0x{x}", .{address}) catch "?";
}

fn find(address: usize, buffer: []u8) ?[]const u8 {
    if (os.symbolOf(address)) |symbol| {
        if (symbol.offset == 0) return std.fmt.bufPrint(buffer, "{s}", .{symbol.name}) catch null;
    }
    const place = os.placeOf(address) orelse return null;
    return std.fmt.bufPrint(buffer, "{s}+0x{x}", .{ place.file, place.offset }) catch null;
}
