//! Samples of what runs, for a CPU profile: which goroutine has the processor at an instant, and
//! its frames.
//!
//! A thread of Python that wants to know has to take the interpreter's lock first, and gets it
//! when the goroutine lets it go: after a switch interval, or sooner where it waits. Whatever runs
//! for less than that would never be seen, and each look would cost two switches of threads. So the
//! thread looks at the lane without the lock, and has the goroutine itself note its frames by a
//! pending call, which the interpreter makes at the goroutine's next check: at a jump or a call.
//! It takes the lock when it has many samples. This is the way of 3.12 and later, as with
//! preemption (preempt.zig).
//!
//! Where there is no such call (3.11), or the goroutine parks before it comes, the thread takes the
//! lock: the goroutine is the one that ran at the instant, and its frames those that it has by
//! then.
//!
//! The instants are a period apart on average, and not always: what happens at an interval of its
//! own, such as the end of a time slice, would else be seen each time, or never. A sample stands
//! for the time since the instant before. One that comes late, since C code kept the lock, stands
//! for the time until it came.
//!
//! A goroutine that is not attached to the interpreter is not reported: it is in a blocking call,
//! or in C code that computes without the lock, and nothing tells these apart.
const std = @import("std");
const os = @import("../../os/os.zig");
const g_mod = @import("../../serial/g.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const preempt = @import("../host/preempt.zig");
const m_mod = @import("../../serial/m.zig");

const G = g_mod.G;
const lane = &host.the_lane;

/// Frames of a sample, the innermost ones.
const most_frames = 200;
/// How long to wait for the pending call before it is looked whether the goroutine still runs.
const patience_ns = 200 * std.time.ns_per_us;

/// A thread is in `sample`. With the lock.
var busy = false;
/// The goroutine that has to note its frames; 0: none. The thread stores it, the goroutine takes
/// it: release and acquire, for `marked`.
var wanted: std.atomic.Value(u64) = .init(0);
/// The rows so far, owned. With the lock.
var rows: ?*py.Object = null;
/// The end of what the last sample stands for. The thread's; while a goroutine has swapped `wanted`
/// to 0 and not yet woken `note`, that one's.
var marked: u64 = 0;
/// The goroutine has noted its frames. Release and acquire, for `marked`.
var note: os.Note = .{};
/// The thread's, for the instants.
var random: std.Random.SplitMix64 = .init(0x9e3779b97f4a7c15);

/// In the child of a fork: the thread is not there, and what it had is left.
pub fn forget() void {
    busy = false;
    rows = null;
    wanted.store(0, .monotonic);
    note = .{};
}

/// sample(period, count): see golibx._core.
pub fn sample(period: f64, count: i64) ?*py.Object {
    if (m_mod.current() != null) return py.raise(
        py.exc.runtimeError(),
        "sample() is for threads: a goroutine would only find itself",
        .{},
    );
    if (!(period >= 0.0001 and period <= 60)) return py.raise(
        py.exc.valueError(),
        "the period must be between 0.0001 and 60 seconds",
        .{},
    );
    if (count < 0) return py.raise(py.exc.valueError(), "the count must not be negative", .{});
    if (busy) return py.raise(
        py.exc.runtimeError(),
        "another thread takes samples: there can be one CPU profile at a time",
        .{},
    );
    rows = py.PyList_New(0) orelse return null;
    busy = true;
    const state = py.PyEval_SaveThread();
    marked = os.nanotime();
    const ok = takeAll(state.?, @intFromFloat(period * std.time.ns_per_s), @intCast(count));
    const found = rows;
    rows = null;
    busy = false;
    if (ok) return found;
    py.xdecref(found);
    return null;
}

/// Without the lock at first, with the lock in the end. False with an exception set.
fn takeAll(state: *py.ThreadState, period_ns: u64, count: u64) bool {
    // A thread that wakes up late, at the end of another one's slice or with another timer, finds
    // a goroutine that runs for less than that only where it has just begun to wait.
    const before: os.Promptness = .ofThread();
    defer before.restore();
    os.preciseSleep();
    os.promptWake();
    var due = marked;
    for (0..count) |_| {
        const now = os.nanotime();
        due = @max(due, now -| period_ns) + period_ns / 2 + random.next() % period_ns;
        os.sleepNs(due -| now);
        const seen = look();
        const at = os.nanotime();
        const s = seen orelse {
            marked = at;
            continue;
        };
        if (haveNoted(s)) continue;
        py.PyEval_RestoreThread(state);
        // If it has come to note it meanwhile, it is too late for this.
        const noted = wanted.swap(0, .acquire) == 0;
        const failed = !noted and !append(s, at);
        if (failed) return false;
        _ = py.PyEval_SaveThread();
    }
    py.PyEval_RestoreThread(state);
    return true;
}

/// With the lock: as it is by now.
fn append(s: Seen, at: u64) bool {
    const stands_for = at -| marked;
    marked = at;
    if (!lane.live or s.g.id != s.id) return true;
    const p = goroutine.of(s.g);
    return p.ended or appendRow(p, stands_for);
}

/// Which goroutine runs, at any moment, without the lock.
const Seen = struct {
    g: *G,
    id: u64,

    fn stillRuns(s: Seen) bool {
        const now = look() orelse return false;
        return now.g == s.g and now.id == s.id;
    }
};

/// PyGs are never freed: one that is not the lane's any more is at worst another goroutine by now.
/// With the lock `id` tells.
fn look() ?Seen {
    if (!@atomicLoad(bool, &lane.live, .monotonic)) return null;
    const g = @atomicLoad(?*G, &lane.running, .acquire) orelse return null;
    if (@atomicLoad(g_mod.Status, &g.status, .monotonic) != .running) return null;
    const p = goroutine.of(g);
    const state = @atomicLoad(usize, @as(*const usize, @ptrCast(&p.state)), .monotonic);
    if (!host.hasInterpreter(state)) return null;
    return .{ .g = g, .id = @atomicLoad(u64, &g.id, .monotonic) };
}

/// True once it has noted its frames; false if it runs no more, or cannot: `wanted` is left then.
/// C code with the lock may keep it for long: then the time is that code's.
fn haveNoted(s: Seen) bool {
    note.clear();
    wanted.store(s.id, .release);
    if (!preempt.interjectForSample(onPending)) return false;
    while (note.sleep(patience_ns) != .woken) {
        if (!s.stillRuns()) return note.isWoken();
    }
    return true;
}

/// Runs between two bytecodes of the thread that holds the lock, and must not switch. One that
/// comes too late, or in another goroutine or thread, finds nothing wanted of it.
fn onPending(_: ?*anyopaque) callconv(.c) c_int {
    const g = lane.onThread() orelse return 0;
    if (wanted.cmpxchgStrong(g.id, 0, .acquire, .monotonic) != null) return 0;
    const now = os.nanotime();
    const p = goroutine.of(g);
    if (!p.ended and !appendRow(p, now -| marked)) py.PyErr_Clear(); // one sample less
    marked = now;
    note.wake();
    return 0;
}

/// (nanoseconds, goroutine, [(code, line), …]), the innermost frame first. False with an exception
/// set.
fn appendRow(p: *goroutine.PyG, stands_for: u64) bool {
    const frames = framesOf(p) orelse return false;
    defer py.decref(frames);
    const number = py.PyLong_FromUnsignedLongLong(stands_for) orelse return false;
    defer py.decref(number);
    const row = py.PyTuple_Pack(3, number, &p.handle.ob, frames) orelse return false;
    defer py.decref(row);
    return py.PyList_Append(rows.?, row) == 0;
}

fn framesOf(p: *goroutine.PyG) ?*py.Object {
    const list = py.PyList_New(0) orelse return null;
    const state = p.state orelse return list;
    var frame = py.PyThreadState_GetFrame(state);
    var count: usize = 0;
    while (frame) |f| : (count += 1) {
        const row = if (count < most_frames) placeOf(f) else null;
        const failed = if (row) |r| py.PyList_Append(list, r) != 0 else count < most_frames;
        py.xdecref(row);
        frame = if (failed or row == null) null else py.extra.PyFrame_GetBack(f);
        py.decref(&f.ob);
        if (failed) {
            py.xdecref(if (frame) |back| &back.ob else null);
            py.decref(list);
            return null;
        }
    }
    return list;
}

fn placeOf(frame: *py.Frame) ?*py.Object {
    const code = py.PyFrame_GetCode(frame);
    defer py.decref(code);
    const line = py.PyLong_FromLongLong(py.PyFrame_GetLineNumber(frame)) orelse return null;
    defer py.decref(line);
    return py.PyTuple_Pack(2, code, line);
}
