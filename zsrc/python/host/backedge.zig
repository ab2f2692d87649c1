//! Ends a goroutine that does not park: raises in it what it has to raise, at a back edge of one of
//! its loops.
//!
//! An exception from outside must not come between two lines: a lock would be acquired, and the
//! `try` that releases it not entered. Where a goroutine parks it is expected, as an error of what
//! it waits for. A program that computes for good does it in a loop, and is between two rounds of
//! that at the jump back: whatever the round has begun is over, or is in a `with` or `try` around
//! the loop. So the loops that the goroutine is in are watched, those of all its frames, once it
//! has had a while to park (goroutine.cancelAll). One that neither parks nor loops goes on.
//!
//! From 3.12 on a loop is watched by JUMP events on the frame's code object. At one that goes back,
//! golibx asks for the next INSTRUCTION event, which is at the jump's target, in the loop: raised
//! by the jump's own event, the exception would miss a `try` that has the loop as its first
//! statement. On 3.11 the frames get opcode events, and one that is not behind the last is at a
//! target.
const std = @import("std");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const preempt = @import("preempt.zig");

const PyG = goroutine.PyG;
const lane = &host.the_lane;

/// Loops farther out than this are not looked for.
const most_frames = 256;

/// A frame's loops that are watched for a goroutine.
const Watch = struct {
    p: *PyG,
    /// 3.12+: its code. 3.11: the frame itself. Owned.
    object: *py.Object,
    /// 3.12+: it has just jumped back.
    landing: bool = false,
    /// 3.11: where it was last, and whether it had no opcode events before.
    last: c_int = 0,
    seen: bool = false,
    marked: bool = false,
};
var watches: std.ArrayList(Watch) = .empty;

/// Watches the loops that `p` is in now. With the lock, from any thread.
pub fn watch(p: *PyG) void {
    const state = p.state orelse return;
    const h = p.handle;
    _ = py.incref(&h.ob);
    defer py.decref(&h.ob);
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    defer py.PyErr_Restore(t, v, tb);
    if (preempt.way == .none) return;
    if (preempt.way == .trace) trace(p, state);
    var frame = py.PyThreadState_GetFrame(state);
    var depth: u32 = 0;
    while (frame) |f| : (depth += 1) {
        // To ask for events runs Python code, in which the goroutine may end.
        if (depth < most_frames and h.pyg() == p) watchFrame(p, f);
        frame = if (depth < most_frames) py.extra.PyFrame_GetBack(f) else null;
        py.decref(&f.ob);
    }
}

fn watchFrame(p: *PyG, frame: *py.Frame) void {
    const code = py.PyFrame_GetCode(frame);
    defer py.decref(code);
    if (preempt.isImportSystem(code)) return;
    const monitored = preempt.way == .monitoring;
    const object = if (monitored) code else &frame.ob;
    if (find(p, object) != null) return;
    var w: Watch = .{ .p = p, .object = py.incref(object) };
    if (!monitored) {
        w.last = py.extra.PyFrame_GetLasti(frame);
        w.marked = preempt.traceOpcodes(object);
    }
    watches.append(host.gpa, w) catch return py.decref(object);
    if (monitored) preempt.refresh(code);
}

fn find(p: *const PyG, object: *const py.Object) ?*Watch {
    for (watches.items) |*w| if (w.p == p and w.object == object) return w;
    return null;
}

/// What is asked of the code object for the goroutines here.
pub fn eventsOn(code: *const py.Object) c_longlong {
    var events: c_longlong = 0;
    for (watches.items) |w| {
        if (w.object != code) continue;
        events |= preempt.jump_event;
        if (w.landing) events |= preempt.instruction_event;
    }
    return events;
}

pub fn any() bool {
    return watches.items.len > 0;
}

/// Its loops are not watched any more.
pub fn unwatch(p: *PyG) void {
    var at: usize = 0;
    while (at < watches.items.len) {
        if (watches.items[at].p != p) {
            at += 1;
            continue;
        }
        const w = watches.swapRemove(at);
        if (preempt.way == .monitoring) {
            preempt.refresh(w.object);
        } else if (w.marked) preempt.dropOpcodes(w.object);
        py.decref(w.object);
        at = 0; // others may have come and gone
    }
    if (p.traced_by) |by| {
        p.traced_by = null;
        if (p.state) |state| preempt.putTrace(state, onTrace, by);
    }
}

fn raise(p: *PyG) bool {
    unwatch(p);
    return goroutine.raisePending(p);
}

// ---- 3.12+ ----

/// A jump in a code object.
pub fn onJump(p: *PyG, code: *py.Object, from: *py.Object, to: *py.Object) void {
    if (watches.items.len == 0) return;
    const w = find(p, code) orelse return;
    if (py.PyLong_AsLongLong(to) > py.PyLong_AsLongLong(from) or p.owes.pending == null) return;
    w.landing = true;
    preempt.refresh(code);
}

/// Whether an exception was raised.
pub fn onInstruction(p: *PyG, code: *py.Object) bool {
    if (watches.items.len == 0) return false;
    const w = find(p, code) orelse return false;
    return w.landing and raise(p);
}

// ---- 3.11 ----

/// Puts `onTrace` in place.
fn trace(p: *PyG, state: *py.ThreadState) void {
    // In front of ours it would take that away with itself.
    preempt.undoTrace(p);
    if (p.traced_by) |by| {
        if (preempt.traceFunction(state) == &onTrace) return;
        py.xdecref(by.object); // the program has set another since
    }
    p.traced_by = preempt.takeTrace(state, onTrace);
}

fn onTrace(
    object: ?*py.Object,
    frame: *py.Object,
    what: c_int,
    arg: ?*py.Object,
) callconv(.c) c_int {
    const g = lane.onThread() orelse lane.stray() orelse return 0;
    const p = goroutine.of(g);
    const by = p.traced_by orelse return 0;
    if (what == preempt.trace_opcode) if (find(p, frame)) |w| {
        const at = py.extra.PyFrame_GetLasti(@ptrCast(frame));
        // The first may be of the instruction at which it gave way.
        const back = at < w.last or (at == w.last and w.seen);
        w.last = at;
        w.seen = true;
        // The program did not ask for the events that only our setting caused.
        const marked = w.marked;
        if (back and p.owes.pending != null and raise(p)) return -1;
        if (marked) return 0;
    };
    return if (by.function) |f| f(object, frame, what, arg) else 0;
}
