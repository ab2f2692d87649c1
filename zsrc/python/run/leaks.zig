//! Goroutines that can't be woken any more: those parked on objects that only such goroutines can
//! reach, as Go's goroutine leak profile finds them.
//!
//! Every goroutine that is parked without a deadline on channels, groups, locks or timers that do
//! not run is suspected. golibx goes through what their stacks refer to, and what that refers to,
//! with the collector's own tp_traverse, and counts the references to each object found. An object
//! with more references than that is held from elsewhere: by a module, a goroutine that runs or
//! sleeps, a thread, C code, a timer or anything else. It is alive, and all that it refers to; and
//! so is a goroutine that waits on something alive, and all that its stack refers to. What is left
//! in the end is leaked. A reference that cannot be seen makes its object alive, so no goroutine is
//! accused that can still be woken by a program that uses what it refers to. A context is alive as
//! well if it has a deadline, or was derived from one that is alive, which knows it without a
//! reference; and it wakes the goroutines that wait under it. Beyond that: code that has a weak
//! reference may come back to the object, so that counts as well, but for the list of a class's
//! subclasses; frames (sys._current_frames, Goroutine.frame) and gc.get_objects are not counted;
//! nor is a Goroutine held to cancel it, since a goroutine that only a cancellation can end is what
//! people look for.
//!
//! A goroutine's stack: what PyG holds for it, the exception that it handles, and what its frames
//! refer to (frames.zig). Of what C functions on it hold, only that is known which frames.zig or
//! select()'s call gives away. All of `leaked` runs with the interpreter's lock and without a call
//! that could let go of it.
const std = @import("std");
const os = @import("../../os/os.zig");
const arguments = @import("../arguments.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const goroutines = @import("../types/handle.zig");
const chan = @import("../types/chan.zig");
const select = @import("../types/select.zig");
const rlock = @import("../host/rlock.zig");
const locks = @import("../patch/locks.zig");
const queues = @import("../patch/queues.zig");
const classes = @import("../classes.zig");
const timer = @import("../types/timer.zig");
const contexts = @import("../types/context.zig");
const frames = @import("frames.zig");
const called = @import("../host/called.zig");
const iterated = @import("../host/iterated.zig");
const peek = @import("peek.zig");

const PyG = goroutine.PyG;
const gpa = host.gpa;
const InterpreterFrame = frames.InterpreterFrame;

// ---- frames ----

/// measure_frames(code, count, exception, /): finds out about frames by a code object with `count`
/// variables of all kinds, and about thread states by the exception that is being handled. False if
/// frames are not known, or it cannot.
pub fn measureFrames(code: *py.Object, count: i64, exception: *py.Object) ?*py.Object {
    if (!py.isCode(code))
        return py.raise(py.exc.typeError(), "measure_frames() needs a code object", .{});
    return py.boolean(frames.measure(code, count, exception));
}

/// frame_slots(frame, /): what its local variables hold, None for one that holds nothing; or None
/// if that is not known.
pub fn frameSlots(o: *py.Object) ?*py.Object {
    if (!frames.measured()) return py.returnNone();
    const frame = frames.InterpreterFrame.of(o) orelse return py.returnNone();
    const list = py.PyList_New(0) orelse return null;
    for (0..frames.slotCount(o)) |i| {
        if (py.PyList_Append(list, frame.variable(i) orelse py.none()) != 0) {
            py.decref(list);
            return null;
        }
    }
    return list;
}

// ---- suspects ----

const Suspect = struct {
    p: *PyG,
    /// A tuple of what frames.Entry describes, the innermost first.
    stack: *py.Object,
    /// See giveArguments.
    arguments: ?*py.Object = null,
    /// See Wanted.
    tuples: [most_tuples]?*py.Object = @splat(null),
    alive: bool = false,

    const most_tuples = 8;

    /// What it waits on: the cases, for a select.
    fn waitsOn(s: Suspect, single: *[1]*py.Object) []const *py.Object {
        const on = s.p.g.waiting_on orelse return &.{};
        const n = s.p.g.waiting_count;
        if (n > 0) return @as(py.Args, @ptrCast(@alignCast(on)))[0..n];
        single[0] = @ptrCast(@alignCast(on));
        return single;
    }

    /// The references of its stack.
    fn eachReference(
        s: Suspect,
        context: anytype,
        comptime visit: fn (@TypeOf(context), *py.Object) void,
    ) void {
        const p = s.p;
        for (p.args[0 .. p.nargs + p.nkw]) |arg| visit(context, arg);
        for (
            [_]?*py.Object{ p.function, p.kwnames, p.group, p.on_end, p.places, p.kept, p.ambient },
        ) |each| {
            if (each) |o| visit(context, o);
        }
        var entered = p.entered;
        while (entered) |e| : (entered = e.below) if (e.before) |o| visit(context, o);
        if (p.handle.watchers) |o| visit(context, o);
        if (s.handled()) |o| visit(context, o);
        const n: usize = @intCast(py.PyTuple_Size(s.stack));
        const waits_on: ?*py.Object = if (p.g.waiting_count > 0)
            null
        else
            @ptrCast(@alignCast(p.g.waiting_on));
        var inner: ?frames.Entry = null;
        for (0..n) |i| {
            const entry: frames.Entry = .of(s.stack, i);
            const frame: ?InterpreterFrame = if (inner) |each| .of(each.object) else null;
            const call: ?called.Call = if (inner) |each| .between(entry, each) else null;
            entry.eachReference(frame, call, if (i == 0) waits_on else null, context, visit);
            if (call) |c| c.eachReference(context, visit);
            if (inner) |each| iterated.eachReference(entry, each, context, visit);
            if (frame) |f| if (InterpreterFrame.of(entry.object)) |outer|
                f.eachBetween(outer, context, visit);
            inner = entry;
            if (i == 0) s.eachArgument(entry, context, visit);
        }
        for (s.tuples) |tuple| if (tuple) |o| visit(context, o);
    }

    fn handled(s: Suspect) ?*py.Object {
        return frames.handledBy(s.p.state orelse return null);
    }

    /// What C code between the interpreter and select() has, for `select(*cases)`: the interpreter
    /// has made a tuple of the cases if they were none, and, if there are keywords too, a copy of
    /// all arguments, which since 3.15 has no references of its own.
    fn eachArgument(
        s: Suspect,
        entry: frames.Entry,
        context: anytype,
        comptime visit: fn (@TypeOf(context), *py.Object) void,
    ) void {
        if (!s.callsWithStar(entry)) return;
        if (s.argumentsOf()) |tuple| {
            if (entry.operands == 2) visit(context, tuple);
            return;
        }
        if (s.arguments) |tuple|
            visit(context, tuple)
        else if (entry.operands == 2 or py.minor() >= 15) return;
        var single: [1]*py.Object = undefined;
        for (s.waitsOn(&single)) |case| visit(context, case);
    }

    /// Whether it is in a `select(*cases)`.
    fn callsWithStar(s: Suspect, entry: frames.Entry) bool {
        const with_star = entry.kind == .call_star or entry.kind == .call_list;
        const function = select.definition.entry.function.address();
        return s.p.g.waiting_count > 0 and with_star and entry.calls(function);
    }

    /// The tuple, if select() was given the items of one.
    fn argumentsOf(s: Suspect) ?*py.Object {
        // They follow its header: references, type and length, since 3.14 a hash.
        const header: usize = if (py.minor() >= 14) 4 else 3;
        const items: [*]const usize = @ptrCast(@alignCast(s.p.g.waiting_on.?));
        const words = items - header;
        const tuple: *py.Object = @ptrCast(@constCast(words));
        const is_tuple = words[1] == @intFromPtr(frames.tuple_type) and
            words[2] == s.p.g.waiting_count;
        return if (is_tuple) tuple else null;
    }

    /// Adds the tuples that its calls hide.
    fn wantTuples(
        s: Suspect,
        index: usize,
        wanted: *std.ArrayList(Wanted),
    ) error{OutOfMemory}!void {
        const n: usize = @intCast(py.PyTuple_Size(s.stack));
        var inner: ?frames.Entry = null;
        var found: usize = 0;
        for (0..n) |at| {
            const entry: frames.Entry = .of(s.stack, at);
            const call: ?called.Call = if (inner) |each| .between(entry, each) else null;
            inner = entry;
            if (call == null or found == most_tuples or !call.?.hidesTuple()) continue;
            try wanted.append(gpa, .{ .suspect = index, .at = found, .call = call.? });
            if (call.?.givenTuple()) |tuple| wanted.items[wanted.items.len - 1].add(tuple);
            found += 1;
        }
    }

    /// Whether select() was given a copy of a tuple that is nowhere on the stack.
    fn lacksArguments(s: Suspect) bool {
        if (py.PyTuple_Size(s.stack) == 0) return false;
        const entry: frames.Entry = .of(s.stack, 0);
        return entry.operands == 2 and s.callsWithStar(entry) and s.argumentsOf() == null;
    }
};

/// Finds tuples that no stack knows, among all that there are: those that select() was given, and
/// those that may be the wanted ones.
fn findTuples(suspects: []Suspect, wanted: *std.ArrayList(Wanted)) bool {
    var lacking = false;
    for (suspects, 0..) |s, i| {
        lacking = lacking or s.lacksArguments();
        s.wantTuples(i, wanted) catch {
            _ = py.PyErr_NoMemory();
            return false;
        };
    }
    if (!lacking and wanted.items.len == 0) return true;
    const get_objects = py.importFrom("gc", "get_objects") orelse return false;
    defer py.decref(get_objects);
    const all = py.call(get_objects, &.{}) orelse return false;
    defer py.decref(all);
    const n: usize = @intCast(py.PyList_Size(all));
    for (0..n) |i| {
        const o = py.PyList_GetItem(all, @intCast(i)).?;
        if (o.type != frames.tuple_type) continue;
        if (lacking) giveArguments(suspects, o);
        for (wanted.items) |*w| if (w.call.hasArguments(o)) w.add(o);
    }
    return true;
}

/// To the first that lacks them and has these cases: any such tuple will do. If it is not the one
/// that the interpreter has, then that one's references are not found, and all of its cases are
/// alive.
fn giveArguments(suspects: []Suspect, tuple: *py.Object) void {
    for (suspects) |*s| {
        if (s.arguments != null or !s.lacksArguments()) continue;
        var single: [1]*py.Object = undefined;
        const cases = s.waitsOn(&single);
        if (py.PyTuple_Size(tuple) != cases.len) continue;
        for (cases, 0..) |case, j| {
            if (py.PyTuple_GetItem(tuple, @intCast(j)) != case) break;
        } else {
            s.arguments = tuple;
            return;
        }
    }
}

/// The tuple that a call hides, and those that may be it. Any of them that has a reference which is
/// not explained will do: see called.zig.
const Wanted = struct {
    suspect: usize,
    at: usize,
    call: called.Call,
    candidates: [16]*py.Object = undefined,
    count: usize = 0,

    fn add(w: *Wanted, tuple: *py.Object) void {
        for (w.candidates[0..w.count]) |each| if (each == tuple) return;
        if (w.count == w.candidates.len) return;
        w.candidates[w.count] = tuple;
        w.count += 1;
    }
};

/// Whether a wait on it can be ended only by code that can reach the object.
fn isJudgeable(o: *py.Object) bool {
    const kind: *const py.Object = @ptrCast(o.type);
    return o == py.none() or o.type == rlock.rlock_type or o.type == locks.lock_type or
        kind == queues.queue_type or classes.isWaitedOn(o.type);
}

/// The suspect of a (goroutine, frames) pair; null if it does not wait, not for ever, or has gone
/// on since the frames were looked at.
fn suspectOf(pair: *py.Object) ?Suspect {
    const handle = py.PyTuple_GetItem(pair, 0) orelse return null;
    const stack = py.PyTuple_GetItem(pair, 1) orelse return null;
    if (!goroutines.Class.is(handle)) return null;
    const p = goroutine.liveOf(handle) orelse return null;
    const s: Suspect = .{ .p = p, .stack = stack };
    if (p.g.status != .waiting or p.g.isClaimed() or p.g.system) return null;
    if (p.g.timer.pending() or p.owes.pending != null) return null;
    switch (p.g.reason) {
        .select_no_cases => {},
        else => if (p.g.waiting_on == null) return null,
    }
    var single: [1]*py.Object = undefined;
    for (s.waitsOn(&single)) |o| if (!isJudgeable(select.objectOf(o))) return null;
    return if (sameFrames(s)) s else null;
}

/// Whether it is a tuple of (goroutine, frames), and each frame what frames.Entry reads.
fn areStacks(stacks: *py.Object) bool {
    if (!py.isTuple(stacks)) return false;
    for (0..@intCast(py.PyTuple_Size(stacks))) |i| {
        const pair = tupleAt(stacks, i, 2) orelse return false;
        const stack = py.PyTuple_GetItem(pair, 1).?;
        if (!py.isTuple(stack)) return false;
        for (0..@intCast(py.PyTuple_Size(stack))) |j| {
            const entry = tupleAt(stack, j, 7) orelse return false;
            if (!py.isFrame(py.PyTuple_GetItem(entry, 0).?)) return false;
            for (1..6) |k| if (!isNumberAt(entry, k)) return false;
            if (py.PyTuple_GetItem(entry, 6).? == py.none()) continue;
            const parameters = tupleAt(entry, 6, 3) orelse return false;
            for (0..3) |k| if (!isNumberAt(parameters, k)) return false;
        }
    }
    return true;
}

fn tupleAt(tuple: *py.Object, i: usize, size: py.Ssize) ?*py.Object {
    const item = py.PyTuple_GetItem(tuple, @intCast(i)).?;
    return if (py.isTuple(item) and py.PyTuple_Size(item) == size) item else null;
}

/// An int of 64 bits.
fn isNumberAt(tuple: *py.Object, i: usize) bool {
    const item = py.PyTuple_GetItem(tuple, @intCast(i)).?;
    if (!py.isInt(item)) return false;
    if (arguments.integer(item) != null) return true;
    py.PyErr_Clear();
    return false;
}

/// A goroutine that is where it was has the same frame on top, at the same instruction; those below
/// cannot have moved.
fn sameFrames(s: Suspect) bool {
    const l = peek.layout.?;
    var top = peek.word(@intFromPtr(s.p.state orelse return false) + l.state_frame) orelse
        return false;
    if (l.indirect) |offset| top = peek.word(top +% offset) orelse return false;
    if (py.PyTuple_Size(s.stack) == 0) return top == 0 or frames.isBase(top);
    const entry = py.PyTuple_GetItem(s.stack, 0).?;
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
    harmless: *py.Object,

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

    /// One that tp_traverse has shown is not there.
    fn uncount(g: *Graph, o: *py.Object) void {
        if (g.nodes.getPtr(o)) |node| node.found -= 1;
    }

    /// As count, of what a stack has: a slot that is read by mistake may be an object's that has
    /// ended.
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
        if (classes.heldBy(o)) |held| _ = visit(held, g);
        if (py.PyObject_GC_IsTracked(o) == 0) return;
        // A goroutine that lives is not reached by its handle: see the top.
        if (goroutines.Class.is(o) and goroutine.liveOf(o) != null) return;
        const function = py.getSlot(o.type, "tp_traverse") orelse return;
        _ = function(o, visit, g);
        if (visit == &visitCount) frames.eachLent(o, g, uncount);
    }

    fn follow(g: *Graph, visit: py.Visit) void {
        while (g.queue.pop()) |o| g.traverse(o, visit);
    }

    /// What is imported is alive, and need not be gone through: what it refers to has a reference
    /// more than is found. Nearly everything can be reached from there.
    fn addModules(g: *Graph) void {
        const modules = py.PyImport_GetModuleDict() orelse return;
        var at: py.Ssize = 0;
        var name: ?*py.Object = null;
        var module: ?*py.Object = null;
        while (py.PyDict_Next(modules, &at, &name, &module) != 0) {
            const dict = py.PyModule_GetDict(module.?) orelse {
                py.PyErr_Clear();
                continue;
            };
            for ([_]*py.Object{ module.?, dict }) |o|
                g.nodes.put(gpa, o, .{ .alive = true }) catch return g.fail();
        }
    }

    /// Has calls refer to the tuples that they hide.
    fn assignTuples(g: *Graph, wanted: []const Wanted) void {
        for (wanted) |w| {
            for (w.candidates[0..w.count]) |tuple| {
                const found = if (g.nodes.get(tuple)) |node| node.found else 0;
                if (found >= py.refcount(tuple)) continue;
                g.suspects.items[w.suspect].tuples[w.at] = tuple;
                g.count(tuple);
                g.follow(visitCount);
                break;
            }
        }
    }

    /// Finds all that the suspects reach, and which of it is held by others.
    fn build(g: *Graph, wanted: []const Wanted) void {
        g.addModules();
        for (g.suspects.items) |s| {
            s.eachReference(g, countHeld);
            // Its handle refers to the function for its name only.
            if (goroutine.namedBy(s.p)) |o| g.count(o);
        }
        g.follow(visitCount);
        g.assignTuples(wanted);
        var it = g.nodes.iterator();
        while (it.next()) |entry| {
            const o = entry.key_ptr.*;
            const found = entry.value_ptr.found;
            const has = py.refcount(o);
            // A module may traverse its free list, of objects that have ended (_asyncio's of
            // futures).
            if (has == 0) continue;
            if (std.debug.runtime_safety and found > has)
                os.fatal(
                    "leaks(): {d} references to a {s} that has {d}",
                    .{ found, peek.typeName(@intFromPtr(o)).slice(), has },
                );
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
            if (!changed) changed = g.markContexts() or g.markWeaklyHeld();
        }
    }

    /// Those that will end for reasons that are no references.
    fn markContexts(g: *Graph) bool {
        var any = false;
        var it = g.nodes.iterator();
        while (it.next()) |entry| {
            const o = entry.key_ptr.*;
            if (entry.value_ptr.alive or !contexts.Class.is(o)) continue;
            if (!contexts.mayEnd(o, g, reaches)) continue;
            g.mark(o);
            any = true;
        }
        g.follow(visitMark);
        return any;
    }

    /// Whether it is alive. What is not in the graph is held by C code only.
    fn reaches(g: *Graph, o: *py.Object) bool {
        return if (g.nodes.get(o)) |node| node.alive else true;
    }

    fn canBeWoken(g: *Graph, s: Suspect) bool {
        if (s.p.g.context) |node| if (contexts.mayNodeEnd(node, g, reaches)) return true;
        var single: [1]*py.Object = undefined;
        for (s.waitsOn(&single)) |case| {
            if (case == py.none()) continue;
            const o = select.objectOf(case);
            if (goroutines.Class.is(o)) {
                // By its end, and that comes unless it is one of the leaked.
                const p = goroutine.liveOf(o) orelse return true;
                const at = g.by_goroutine.get(p) orelse return true;
                if (g.suspects.items[at].alive) return true;
            } else if (timer.ChanClass.is(o) and timer.isArmed(o)) {
                return true;
            } else if (chan.Class.is(o) and contexts.neverCloses(o)) {
                continue;
            } else if (g.reaches(o)) return true;
        }
        return false;
    }

    /// Code that has a weak reference to an object may use it.
    fn markWeaklyHeld(g: *Graph) bool {
        var any = false;
        var it = g.nodes.iterator();
        while (it.next()) |entry| {
            if (entry.value_ptr.alive or !hasWeakReferences(entry.key_ptr.*, g.harmless)) continue;
            g.mark(entry.key_ptr.*);
            any = true;
        }
        g.follow(visitMark);
        return any;
    }
};

/// _weakref.getweakrefs: it runs no code of the program's.
var weak_references: ?*py.Object = null;

/// Apart from those in the list `harmless`.
fn hasWeakReferences(o: *py.Object, harmless: *py.Object) bool {
    const list = py.call(weak_references.?, &.{o}) orelse {
        py.PyErr_Clear();
        return true;
    };
    defer py.decref(list);
    var counted: ?*py.Object = null;
    for (0..@intCast(py.PyList_Size(list))) |i| {
        const reference = py.PyList_GetItem(list, @intCast(i)).?;
        if (isIn(harmless, reference)) continue;
        if (counted != null or !py.isType(o)) return true;
        counted = reference;
    }
    // Each base has the same one in the list of its subclasses, and this list has it.
    const subclass = counted orelse return false;
    const bases = py.PyObject_GetAttrString(o, "__bases__") orelse {
        py.PyErr_Clear();
        return true;
    };
    defer py.decref(bases);
    return py.refcount(subclass) != py.PyTuple_Size(bases) + 1;
}

fn isIn(list: *py.Object, o: *py.Object) bool {
    for (0..@intCast(py.PyList_Size(list))) |i| {
        if (py.PyList_GetItem(list, @intCast(i)) == o) return true;
    }
    return false;
}

/// leaked(stacks, harmless, /): of a tuple of (goroutine, frames), the goroutines that are leaked.
/// `harmless` is a list of weak references that do not count.
pub fn leaked(stacks: *py.Object, harmless: *py.Object) ?*py.Object {
    if (py.PyList_Size(harmless) < 0) return null;
    if (!frames.measured())
        return py.raise(py.exc.runtimeError(), "the frames of this Python are not known", .{});
    if (weak_references == null) {
        weak_references = py.importFrom("_weakref", "getweakrefs") orelse return null;
    }
    if (!areStacks(stacks)) {
        const text = "leaked() needs stacks as golibx.frames makes them";
        return py.raise(py.exc.typeError(), text, .{});
    }
    const n = py.PyTuple_Size(stacks);
    var graph: Graph = .{ .harmless = harmless };
    defer graph.deinit();
    for (0..@intCast(n)) |i| {
        const s = suspectOf(py.PyTuple_GetItem(stacks, @intCast(i)).?) orelse continue;
        graph.suspects.append(gpa, s) catch return py.PyErr_NoMemory();
        graph.by_goroutine.put(
            gpa,
            s.p,
            graph.suspects.items.len - 1,
        ) catch return py.PyErr_NoMemory();
    }
    var wanted: std.ArrayList(Wanted) = .empty;
    defer wanted.deinit(gpa);
    if (!findTuples(graph.suspects.items, &wanted)) return null;
    if (graph.suspects.items.len > 0) {
        graph.build(wanted.items);
        graph.settle();
    }
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
