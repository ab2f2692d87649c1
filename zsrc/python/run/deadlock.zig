//! "All goroutines are asleep": nothing in the program can ever wake one. The main goroutine then
//! raises Deadlock, with every goroutine's stack.
const std = @import("std");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const idents = @import("../host/idents.zig");
const parking = @import("../host/parking.zig");
const goroutine = @import("../host/goroutine.zig");
const standin = @import("../host/standin.zig");
const import_lock = @import("../host/import_lock.zig");
const requests = @import("requests.zig");

const lane = &host.the_lane;

/// How often to look again whether all goroutines are asleep for good.
const recheck_ns = 100 * std.time.ns_per_ms;
/// While a thread may have been started and not be counted yet; and more seldom, when it has not
/// been for so long. A busy machine lets it wait.
const begins_recheck_ns = std.time.ns_per_ms;
const late_recheck_ns = 50 * std.time.ns_per_ms;
const late_ns = 50 * std.time.ns_per_ms;
/// Threads of C code may have a state and run nothing for ever. After this time no thread is taken
/// for one that begins which was there before.
const patience_ns = 3 * std.time.ns_per_s;
/// The last of them has this number, and so has none that is made later.
var known_idle: u64 = 0;
/// When this wait of the program's was first looked at, which began with that turn.
var since: u64 = 0;
var turn: u64 = 0;

/// With the lock, on g0. Null if the main goroutine has been woken for it, else when to ask again.
pub fn report() ?u64 {
    const main = goroutine.main orelse return recheck_ns;
    // A thread that has just been started may be about to let a patched lock go.
    if (parking.waiting > 0) if (beginsSoon()) |recheck| return recheck;
    if (main.g.status != .waiting or otherThreads()) return recheck_ns;
    const exception = make() orelse py.takeException() orelse return recheck_ns;
    // A thread that has ended since may have woken a goroutine first.
    if (main.g.status != .waiting or lane.anyRunnable()) {
        py.decref(exception);
    } else {
        lane.record(.deadlock, main.g.id, lane.user_count, 0);
        goroutine.interrupt(main, exception);
    }
    return null;
}

/// When to ask again, if a thread may be about to begin.
fn beginsSoon() ?u64 {
    const now = os.nanotime();
    const this_turn = lane.tick.load(.monotonic);
    if (this_turn != turn) since = now;
    turn = this_turn;
    const newest = newestThatBegins() orelse return null;
    const waited = now - since;
    if (waited < late_ns) return begins_recheck_ns;
    if (waited < patience_ns) return late_recheck_ns;
    known_idle = newest;
    return null;
}

/// Threads of the program's own may still send to a channel, unless they wait as well, for as long
/// as it takes.
fn otherThreads() bool {
    // The thread that answers a dump is no thread of the program's, but takes locks as those do.
    // And what is called from here imports: on g0, where it would wait for an import of another
    // thread that may have let a goroutine have the lock meanwhile.
    if (parking.waiting > 0 and requests.isAnswering()) return true;
    if (import_lock.isTaken()) return true;
    const n = call("_thread", "_count", null) orelse return clear(true);
    defer py.decref(n);
    // The thread that called run() counts if it is not the main one, which never does.
    const others = py.PyLong_AsLongLong(n) - @intFromBool(!on_main_thread) - bystanders();
    if (!standin.allWait(@intCast(@max(0, others)))) return true;
    if (on_main_thread) return false;
    return if (standin.mainWaits()) mainMayHandle() else !mainJoins();
}

/// Of the threads that may have been started and not be counted yet. A thread counts itself before
/// it runs its function: until then its state has no frame, nor at first a number.
fn newestThatBegins() ?u64 {
    var newest: ?u64 = null;
    var it = py.extra.PyInterpreterState_ThreadHead(host.interpreter);
    while (it) |state| : (it = py.extra.PyThreadState_Next(state)) {
        const ident = host.identOf(state).*;
        if (idents.has(ident) or ident == idents.idle() or isOwn(state)) continue;
        const number = py.PyThreadState_GetID(state);
        if (number <= known_idle) continue;
        const frame = py.PyThreadState_GetFrame(state) orelse {
            newest = @max(newest orelse 0, number);
            continue;
        };
        py.decref(@ptrCast(frame));
    }
    return newest;
}

/// Whether it is that of an M or of the main goroutine.
fn isOwn(state: *py.ThreadState) bool {
    if (state == goroutine.main_state) return true;
    var it = lane.all_m;
    while (it) |m| : (it = m.next_all) if (m.base == @as(?*anyopaque, state)) return true;
    return false;
}

/// Whether the main thread has signal handlers of the program's to call while it waits.
fn mainMayHandle() bool {
    return isSo("golibx.patch.signals", "main_thread_may_handle", null);
}

/// Threads that have nothing to do with the run: one that takes a profile may come at any time.
fn bystanders() i64 {
    const n = call("golibx.patch.threads", "count_bystanders", null) orelse {
        py.PyErr_Clear();
        return 0;
    };
    defer py.decref(n);
    return py.PyLong_AsLongLong(n);
}

/// Whether the main thread waits for the end of the one that called run().
fn mainJoins() bool {
    const ident = py.PyLong_FromUnsignedLongLong(run_thread) orelse return clear(false);
    defer py.decref(ident);
    return isSo("golibx.dump", "main_thread_joins", ident);
}

fn isSo(module_name: [*:0]const u8, name: [*:0]const u8, arg: ?*py.Object) bool {
    const answer = call(module_name, name, arg) orelse return clear(false);
    defer py.decref(answer);
    return py.isTrue(answer);
}

/// Set by run().
pub var on_main_thread = true;
/// The interpreter's number of the thread that called it.
pub var run_thread: c_ulong = 0;

fn clear(result: bool) bool {
    py.PyErr_Clear();
    return result;
}

fn make() ?*py.Object {
    return call("golibx.dump", "deadlock", null);
}

fn call(module_name: [*:0]const u8, name: [*:0]const u8, arg: ?*py.Object) ?*py.Object {
    const function = py.importFrom(module_name, name) orelse return null;
    defer py.decref(function);
    return if (arg) |a| py.call(function, &.{a}) else py.call(function, &.{});
}
