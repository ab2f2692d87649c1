//! Goroutines that nobody can wake any more: those parked on objects that only such goroutines can
//! reach, as Go's goroutine leak profile finds them.
//!
//! Every goroutine that is parked without a deadline on channels, groups or locks is suspected. What
//! their stacks refer to, and what that refers to, is gone through with the collector's own tp_traverse,
//! and the references to each object found are counted. An object with more references than that is held
//! by somebody else: a module, a goroutine that runs or sleeps, a thread, C code, a timer, whoever. It is
//! alive, and all that it refers to; and so is a goroutine that waits on something alive, and all that
//! its stack refers to. What is left in the end is leaked. A reference that cannot be seen makes its
//! object alive, so nobody is accused who can still be woken by a program that uses what it refers to.
//! Beyond that: who has a weak reference may come back to the object, so that counts as well; frames
//! (sys._current_frames, Goroutine.frame) and gc.get_objects are not counted; nor is a Goroutine held to
//! cancel it, since one that only a cancellation can end is what people look for.
//!
//! A goroutine's stack: what PyG holds for it, and of each frame the function, the local variables and
//! the value stack. Frames are as in 3.11 to 3.13 (`supported`), which a test in golibx.leaked confirms. How
//! high the value stack is while a C function runs is not stored anywhere; golibx.leaked tells by the code.
//! All of `leaked` runs with the interpreter's lock and without a call that could let go of it.
const std = @import("std");
const os = @import("../os/os.zig");
const py = @import("py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const chan = @import("chan.zig");
const select = @import("select.zig");
const waitgroup = @import("waitgroup.zig");
const rlock = @import("rlock.zig");
const sync = @import("sync.zig");
const peek = @import("peek.zig");

const PyG = goroutine.PyG;
const gpa = host.gpa;
const Args = [*]const *py.Object;

fn supported() bool {
    return py.minor() >= 11 and py.minor() <= 13 and peek.layout != null;
}

// ---- frames ----

/// _PyInterpreterFrame of 3.11 to 3.13.
const InterpreterFrame = struct {
    words: [*]const ?*py.Object,

    /// Null if it is none, if the frame has ended, or is a generator's, which its generator's tp_traverse covers.
    fn of(frame: *py.Object) ?InterpreterFrame {
        if (@intFromPtr(frame.type) != peek.layout.?.frame_type) return null;
        const field: *const usize = @ptrFromInt(@intFromPtr(frame) + peek.frame_object_frame);
        const f: InterpreterFrame = .{ .words = @ptrFromInt(field.*) };
        const owner_at: usize = if (py.minor() == 11) 69 else 70;
        return if (f.bytes()[owner_at] == 0) f else null;
    }

    fn bytes(f: InterpreterFrame) [*]const u8 {
        return @ptrCast(f.words);
    }

    fn function(f: InterpreterFrame) ?*py.Object {
        return f.words[if (py.minor() == 11) 0 else 2];
    }

    /// Local variables and the value stack: the number of those in use, if it is stored.
    fn stored(f: InterpreterFrame) ?usize {
        const top: *const i32 = @ptrCast(@alignCast(f.bytes() + 64));
        return if (top.* >= 0) @intCast(top.*) else null;
    }

    fn slots(f: InterpreterFrame) [*]const ?*py.Object {
        return f.words + 9;
    }
};

/// Where PyCodeObject has the number of a frame's local variables, cells and free variables.
var slot_count_offset: usize = 0;

fn slotCount(frame: *py.Object) usize {
    const code = py.PyFrame_GetCode(@ptrCast(frame));
    defer py.decref(code);
    const field: *const i32 = @ptrFromInt(@intFromPtr(code) + slot_count_offset);
    return @intCast(field.*);
}

/// measure_frames(code, count, /): looks where a code object, by one with `count` variables of all kinds,
/// has their number. False if frames are not known, or it cannot be found.
pub fn measureFrames(_: ?*py.Object, args: Args, n: py.Ssize) callconv(.c) ?*py.Object {
    if (n != 2) return py.raise(py.exc.typeError(), "measure_frames() takes 2 arguments ({d} given)", .{n});
    peek.calibrate();
    if (!supported()) return py.boolean(false);
    const count = py.PyLong_AsLongLong(args[1]);
    if (count == -1 and py.PyErr_Occurred() != null) return null;
    if (!py.isCode(args[0]))
        return py.raise(py.exc.typeError(), "measure_frames() needs a code object", .{});
    const code: [*]const i32 = @ptrCast(@alignCast(args[0]));
    slot_count_offset = for (4..48) |i| {
        if (code[i] == count) break i * 4;
    } else 0;
    return py.boolean(slot_count_offset != 0);
}

/// frame_slots(frame, /): what its local variables hold, None for one that holds nothing; or None if that
/// is not known.
pub fn frameSlots(_: ?*py.Object, o: ?*py.Object) callconv(.c) ?*py.Object {
    if (slot_count_offset == 0) return py.returnNone();
    const frame = InterpreterFrame.of(o.?) orelse return py.returnNone();
    const list = py.PyList_New(0) orelse return null;
    for (frame.slots()[0..slotCount(o.?)]) |slot| {
        if (py.PyList_Append(list, slot orelse py.none()) != 0) {
            py.decref(list);
            return null;
        }
    }
    return list;
}

// ---- suspects ----

const Suspect = struct {
    p: *PyG,
    /// A tuple of (frame, lasti, depth): see golibx.leaked.
    frames: *py.Object,
    alive: bool = false,

    /// What it waits on: the cases, for a select.
    fn waitsOn(s: Suspect, single: *[1]*py.Object) []const *py.Object {
        const on = s.p.g.waiting_on orelse return &.{};
        const n = s.p.g.waiting_count;
        if (n > 0) return @as([*]const *py.Object, @ptrCast(@alignCast(on)))[0..n];
        single[0] = @ptrCast(@alignCast(on));
        return single;
    }

    /// The references of its stack.
    fn eachReference(s: Suspect, context: anytype, comptime visit: fn (@TypeOf(context), *py.Object) void) void {
        const p = s.p;
        for (p.args[0 .. p.nargs + p.nkw]) |arg| visit(context, arg);
        for ([_]?*py.Object{ p.function, p.kwnames, p.group }) |each| if (each) |o| visit(context, o);
        const n: usize = @intCast(py.PyTuple_Size(s.frames));
        for (0..n) |i| {
            const entry = py.PyTuple_GetItem(s.frames, @intCast(i)).?;
            const object = py.PyTuple_GetItem(entry, 0).?;
            const frame = InterpreterFrame.of(object) orelse continue;
            if (frame.function()) |o| visit(context, o);
            const variables = slotCount(object);
            const depth: usize = @intCast(@max(0, py.PyLong_AsLongLong(py.PyTuple_GetItem(entry, 2).?)));
            const used = frame.stored() orelse variables + depth;
            for (frame.slots()[0..used]) |slot| if (slot) |o| visit(context, o);
            if (i == 0 and frame.stored() == null) if (s.argumentsOf(frame.slots()[0..used])) |o| visit(context, o);
        }
    }

    /// The tuple that `select(*cases)` was called with. The interpreter has taken it off the stack, of
    /// which `slots` are left, and keeps it until the call returns.
    fn argumentsOf(s: Suspect, slots: []const ?*py.Object) ?*py.Object {
        const n = s.p.g.waiting_count;
        if (n == 0 or slots.len < 2) return null;
        const calls_select = for (slots[slots.len - 2 ..]) |slot| {
            const o = slot orelse continue;
            if (o.type == builtin_type and py.PyCFunction_GetFunction(o) == @as(?*const anyopaque, &select.select))
                break true;
        } else false;
        if (!calls_select) return null;
        // A tuple's items follow its header: references, type and length.
        const items: [*]const usize = @ptrCast(@alignCast(s.p.g.waiting_on.?));
        const tuple: *py.Object = @ptrCast(@constCast(items - 3));
        return if ((items - 2)[0] == @intFromPtr(tuple_type) and (items - 1)[0] == n) tuple else null;
    }
};

var builtin_type: ?*py.Type = null;
var tuple_type: ?*py.Type = null;

/// Of a wait that only those end who can reach the object.
fn isJudgeable(o: *py.Object) bool {
    return o == py.none() or o.type == chan.chan_type or o.type == waitgroup.wg_type or
        o.type == rlock.rlock_type or o.type == goroutine.goroutine_type or sync.waitsOn(o.type);
}

/// The suspect of a (goroutine, frames) pair; null if it does not wait, not for ever, or has gone on
/// since the frames were looked at.
fn suspectOf(pair: *py.Object) ?Suspect {
    const handle = py.PyTuple_GetItem(pair, 0) orelse return null;
    const frames = py.PyTuple_GetItem(pair, 1) orelse return null;
    if (handle.type != goroutine.goroutine_type) return null;
    const p = goroutine.liveOf(handle) orelse return null;
    const s: Suspect = .{ .p = p, .frames = frames };
    if (p.g.status != .waiting or p.g.isClaimed() or p.g.system) return null;
    if (p.g.timer.pending() or p.pending != null) return null;
    // Whoever holds its context can end the wait.
    if (p.g.context != null) return null;
    switch (p.g.reason) {
        .select_no_cases => {},
        else => if (p.g.waiting_on == null) return null,
    }
    var single: [1]*py.Object = undefined;
    for (s.waitsOn(&single)) |o| if (!isJudgeable(select.objectOf(o))) return null;
    return if (sameFrames(s)) s else null;
}

/// A goroutine that is where it was has the same frame on top, at the same instruction; those below
/// cannot have moved.
fn sameFrames(s: Suspect) bool {
    const l = peek.layout.?;
    var top = peek.word(@intFromPtr(s.p.state orelse return false) + l.state_frame) orelse return false;
    if (l.indirect) |offset| top = peek.word(top +% offset) orelse return false;
    if (py.PyTuple_Size(s.frames) == 0) return top == 0;
    const entry = py.PyTuple_GetItem(s.frames, 0).?;
    const frame = py.PyTuple_GetItem(entry, 0).?;
    const own = peek.word(@intFromPtr(frame) + peek.frame_object_frame) orelse return false;
    const lasti = py.PyLong_AsLongLong(py.PyTuple_GetItem(entry, 1).?);
    return own == top and py.extra.PyFrame_GetLasti(@ptrCast(frame)) == lasti;
}

// ---- marking ----

const Node = struct { found: isize = 0, alive: bool = false };

const Graph = struct {
    nodes: std.AutoHashMapUnmanaged(*py.Object, Node) = .empty,
    queue: std.ArrayList(*py.Object) = .empty,
    suspects: std.ArrayList(Suspect) = .empty,
    by_goroutine: std.AutoHashMapUnmanaged(*PyG, usize) = .empty,
    out_of_memory: bool = false,

    fn deinit(g: *Graph) void {
        g.nodes.deinit(gpa);
        g.queue.deinit(gpa);
        g.suspects.deinit(gpa);
        g.by_goroutine.deinit(gpa);
    }

    /// A reference to `o` from what suspects have.
    fn count(g: *Graph, o: *py.Object) void {
        const entry = g.nodes.getOrPut(gpa, o) catch return g.fail();
        if (!entry.found_existing) {
            entry.value_ptr.* = .{};
            g.queue.append(gpa, o) catch return g.fail();
        }
        entry.value_ptr.found += 1;
    }

    /// As count, of what a stack has: a slot that is read by mistake may be an object's that has ended.
    fn countHeld(g: *Graph, o: *py.Object) void {
        if (std.debug.runtime_safety and py.refcount(o) == 0)
            os.fatal("leaks(): an object without references on a stack", .{});
        g.count(o);
    }

    fn fail(g: *Graph) void {
        g.out_of_memory = true;
    }

    fn mark(g: *Graph, o: *py.Object) void {
        const node = g.nodes.getPtr(o) orelse return;
        if (node.alive) return;
        node.alive = true;
        g.queue.append(gpa, o) catch g.fail();
    }

    fn visitCount(o: *py.Object, raw: ?*anyopaque) callconv(.c) c_int {
        const g: *Graph = @ptrCast(@alignCast(raw.?));
        g.count(o);
        return 0;
    }

    fn visitMark(o: *py.Object, raw: ?*anyopaque) callconv(.c) c_int {
        const g: *Graph = @ptrCast(@alignCast(raw.?));
        g.mark(o);
        return 0;
    }

    fn traverse(g: *Graph, o: *py.Object, visit: py.Visit) void {
        if (py.PyObject_GC_IsTracked(o) == 0) return;
        // A goroutine that lives is not reached by its handle: see the top.
        if (o.type == goroutine.goroutine_type and goroutine.liveOf(o) != null) return;
        const slot = py.PyType_GetSlot(o.type, py.slot.tp_traverse) orelse return;
        const function: *const fn (*py.Object, py.Visit, ?*anyopaque) callconv(.c) c_int =
            @ptrCast(@alignCast(slot));
        _ = function(o, visit, g);
    }

    fn follow(g: *Graph, visit: py.Visit) void {
        while (g.queue.pop()) |o| g.traverse(o, visit);
    }

    /// Finds all that the suspects reach, and who of it is held by others.
    fn build(g: *Graph) void {
        for (g.suspects.items) |s| {
            s.eachReference(g, countHeld);
            // Its handle refers to the function for its name only.
            if (goroutine.namedBy(s.p)) |o| g.count(o);
        }
        g.follow(visitCount);
        var it = g.nodes.iterator();
        while (it.next()) |entry| {
            const o = entry.key_ptr.*;
            const found = entry.value_ptr.found;
            const has = py.refcount(o);
            // A module may traverse its free list, of objects that have ended (_asyncio's of futures).
            if (has == 0) continue;
            if (std.debug.runtime_safety and found > has)
                os.fatal("leaks(): {d} references to an object that has {d}", .{ found, has });
            if (found != has) g.mark(o);
        }
        g.follow(visitMark);
    }

    /// Until nothing changes any more.
    fn settle(g: *Graph) void {
        var changed = true;
        while (changed) {
            changed = false;
            for (g.suspects.items) |*s| {
                if (s.alive or !g.canBeWoken(s.*)) continue;
                s.alive = true;
                changed = true;
                s.eachReference(g, mark);
                g.follow(visitMark);
            }
            if (!changed) changed = g.markWeaklyHeld();
        }
    }

    fn canBeWoken(g: *Graph, s: Suspect) bool {
        var single: [1]*py.Object = undefined;
        for (s.waitsOn(&single)) |case| {
            if (case == py.none()) continue;
            const o = select.objectOf(case);
            if (o.type == goroutine.goroutine_type) {
                // By its end, and that comes unless it is one of the leaked.
                const p = goroutine.liveOf(o) orelse return true;
                const at = g.by_goroutine.get(p) orelse return true;
                if (g.suspects.items[at].alive) return true;
            } else if (g.nodes.get(o)) |node| {
                if (node.alive) return true;
            } else return true; // held by C code only
        }
        return false;
    }

    /// Whoever has a weak reference to an object may use it.
    fn markWeaklyHeld(g: *Graph) bool {
        var any = false;
        var it = g.nodes.iterator();
        while (it.next()) |entry| {
            if (entry.value_ptr.alive or !hasWeakReferences(entry.key_ptr.*)) continue;
            g.mark(entry.key_ptr.*);
            any = true;
        }
        g.follow(visitMark);
        return any;
    }
};

/// _weakref.getweakrefcount: it runs no code of the program's.
var weak_count: ?*py.Object = null;

fn hasWeakReferences(o: *py.Object) bool {
    const n = py.call(weak_count.?, &.{o}) orelse {
        py.PyErr_Clear();
        return true;
    };
    defer py.decref(n);
    return py.PyLong_AsLongLong(n) != 0;
}

/// leaked(stacks, /): of a list of (goroutine, frames), the goroutines that are leaked.
pub fn leaked(_: ?*py.Object, stacks: ?*py.Object) callconv(.c) ?*py.Object {
    if (!supported() or slot_count_offset == 0)
        return py.raise(py.exc.runtimeError(), "the frames of this Python are not known", .{});
    if (weak_count == null) {
        weak_count = py.importFrom("_weakref", "getweakrefcount") orelse return null;
        builtin_type = weak_count.?.type;
        tuple_type = stacks.?.type;
    }
    const n = py.PyTuple_Size(stacks.?);
    if (n < 0) return null;
    var graph: Graph = .{};
    defer graph.deinit();
    for (0..@intCast(n)) |i| {
        const s = suspectOf(py.PyTuple_GetItem(stacks.?, @intCast(i)).?) orelse continue;
        graph.suspects.append(gpa, s) catch return py.PyErr_NoMemory();
        graph.by_goroutine.put(gpa, s.p, graph.suspects.items.len - 1) catch return py.PyErr_NoMemory();
    }
    graph.build();
    graph.settle();
    if (graph.out_of_memory) return py.PyErr_NoMemory();
    const list = py.PyList_New(0) orelse return null;
    for (graph.suspects.items) |s| {
        if (!s.alive and py.PyList_Append(list, &s.p.handle.ob) != 0) {
            py.decref(list);
            return null;
        }
    }
    return list;
}
