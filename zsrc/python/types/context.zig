//! golibx.context in native code: contexts as Python objects, and the ambient one of each
//! goroutine.
//!
//! A context object holds its parent; the tree of serial/context.zig points the other way, without
//! owning, so that a forgotten context goes away, its timer with it. One with a value, or without
//! cancellation, has no node in the tree: `source` is the node that it obeys.
//!
//! A timer cancels contexts in the middle of a switch, where no Python code may run. So what
//! happens then is prepared before: the channel of done() is closed natively, and after_func()
//! makes its goroutine when it is called. A channel holds its context (Chan.keeper): it has to be
//! closed as long as a goroutine can wait for that. A registration of after_func() holds it if a
//! parent or a timer can still cancel it.
const std = @import("std");
const List = @import("../../core/list.zig").List;
const sched = @import("../../serial/context.zig");
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const errors = @import("../errors.zig");
const goroutine = @import("../host/goroutine.zig");
const chan = @import("chan.zig");
const timeouts = @import("../timeouts.zig");

const Node = sched.Context;
const PyG = goroutine.PyG;
const lane = &host.the_lane;

/// golibx.context.Context.
const Object = extern struct {
    ob: py.Object,
    weakrefs: ?*py.Object,
    parent: ?*Object,
    /// A *Node: its own, an ancestor's, or null if nothing can cancel it.
    source: ?*anyopaque,
    /// What with_value() gave it.
    key: ?*py.Object,
    value: ?*py.Object,
    /// Why it was cancelled, if that was said.
    cause: ?*py.Object,
    /// What done() returns.
    chan: ?*py.Object,
    registrations: List(Registration),
    node: [@sizeOf(Node)]u8 align(@alignOf(Node)),

    inline fn obeys(o: *Object) ?*Node {
        return @ptrCast(@alignCast(o.source));
    }

    inline fn own(o: *Object) *Node {
        return @ptrCast(&o.node);
    }

    inline fn owns(o: *Object) bool {
        return o.source == @as(?*anyopaque, &o.node);
    }

    inline fn ofNode(node: *Node) *Object {
        return @alignCast(@fieldParentPtr("node", @as(*[@sizeOf(Node)]u8, @ptrCast(node))));
    }
};

/// What after_func() registered: a goroutine that is not launched yet. Its context's list owns one
/// reference to it while it is linked.
const Registration = extern struct {
    ob: py.Object,
    /// The object that has it in its list, owned; owned twice if `pinned`.
    context: ?*Object,
    /// A *PyG.
    p: ?*anyopaque,
    prev: ?*Registration,
    next: ?*Registration,
    generation: u32,
    linked: bool,
    pinned: bool,

    inline fn pyg(r: *Registration) ?*PyG {
        return @ptrCast(@alignCast(r.p));
    }
};

var background_object: ?*py.Object = null;

inline fn self(o: *py.Object) *Object {
    return Class.of(o);
}

/// Null with an exception set.
fn parseContext(o: *py.Object, what: [*:0]const u8) ?*Object {
    if (Class.is(o)) return self(o);
    _ = py.PyErr_Format(
        py.exc.typeError(),
        "%s must be a Context of golibx.context, not %R",
        what,
        o,
    );
    return null;
}

// ---- making them ----

fn make(parent: ?*Object) ?*Object {
    const object = py._PyObject_GC_New(Class.python_type) orelse return null;
    @memset(@as([*]u8, @ptrCast(object))[@sizeOf(py.Object)..@sizeOf(Object)], 0);
    const o = self(object);
    o.own().* = .{ .on_done = onDone };
    if (parent) |p| {
        o.parent = @ptrCast(py.incref(&p.ob));
        o.source = p.source;
    }
    return o;
}

inline fn finished(o: *Object) *py.Object {
    py.PyObject_GC_Track(&o.ob);
    return &o.ob;
}

/// context_background()
pub fn background() ?*py.Object {
    if (background_object == null) {
        const made = finished(make(null) orelse return null);
        // Making it may have run other code that did the same.
        if (background_object == null) background_object = made else py.decref(made);
    }
    return py.incref(background_object.?);
}

/// context_current()
pub fn current() ?*py.Object {
    if (lane.onThread()) |g| {
        if (goroutine.of(g).ambient) |o| return py.incref(o);
    }
    return background();
}

fn derive(parent: *py.Object, deadline: u64) ?*py.Object {
    const p = parseContext(parent, "the parent") orelse return null;
    const o = make(p) orelse return null;
    const above = o.obeys();
    o.source = o.own();
    lane.attachContext(o.own(), above, deadline) catch {
        py.decref(finished(o));
        return py.PyErr_NoMemory();
    };
    return finished(o);
}

/// context_with_cancel(parent, /)
pub fn withCancel(parent: *py.Object) ?*py.Object {
    return derive(parent, sched.never);
}

/// context_with_timeout(parent, seconds, /)
pub fn withTimeout(parent: *py.Object, given: *py.Object) ?*py.Object {
    const seconds = timeouts.number(given, "a time-out must be a number of seconds, not %R") orelse
        return null;
    const limit = timeouts.fromSeconds(seconds) orelse return null;
    return derive(parent, switch (limit) {
        .poll => lane.now(),
        else => limit.deadline() orelse sched.never,
    });
}

/// context_with_deadline(parent, t, /): seconds of time.monotonic().
pub fn withDeadline(parent: *py.Object, given: *py.Object) ?*py.Object {
    const t = timeouts.number(
        given,
        "a deadline must be a number of seconds, not %R",
    ) orelse return null;
    return derive(parent, switch (timeouts.fromSeconds(t) orelse return null) {
        .poll => 0,
        .forever => sched.never,
        .ns => |ns| ns,
    });
}

/// context_with_value(parent, key, value, /)
pub fn withValue(parent: *py.Object, key: *py.Object, value: *py.Object) ?*py.Object {
    const o = make(parseContext(parent, "the parent") orelse return null) orelse return null;
    o.key = py.incref(key);
    o.value = py.incref(value);
    return finished(o);
}

/// context_without_cancel(parent, /)
pub fn withoutCancel(parent: *py.Object) ?*py.Object {
    const o = make(parseContext(parent, "the parent") orelse return null) orelse return null;
    o.source = null;
    return finished(o);
}

// ---- their end ----

/// Runs wherever a context is cancelled, also where no Python code may run.
fn onDone(node: *Node) void {
    const o = Object.ofNode(node);
    if (o.chan) |ch| closeChan(ch);
    var it = o.registrations.head;
    while (it) |r| {
        it = r.next;
        // What an earlier run has left behind does not start in this one.
        if (!lane.live or r.generation != lane.generation) continue;
        unlink(r);
        const p = r.pyg().?;
        r.p = null;
        // The list's reference, which is let go where that may run code.
        p.kept = &r.ob;
        lane.go(&p.g);
        p.handle.id = p.g.id;
    }
}

fn closeChan(ch: *py.Object) void {
    _ = chan.Class.of(ch).c().close();
}

fn cancel(o: *Object, cause: ?*py.Object) void {
    const node = o.own();
    lane.expireContext(node);
    if (node.done()) return;
    if (cause) |c| o.cause = py.incref(c);
    lane.cancelContext(node, .cancelled);
    // Closed as it is, the channel does not need the context any more.
    if (o.chan) |ch| chan.keep(ch, null);
}

fn cancelMethod(o: *Object) void {
    if (o.owns()) cancel(o, null);
}

fn cancelCause(o: *Object, given: ?*py.Object) ?*py.Object {
    var cause: ?*py.Object = null;
    if (given) |c| if (c != py.none()) {
        if (!py.isException(c)) return py.PyErr_Format(
            py.exc.typeError(),
            "the cause of a cancellation must be an exception or None, not %R",
            c,
        );
        cause = c;
    };
    if (o.owns()) cancel(o, cause);
    return py.returnNone();
}

/// The error of a context that is done: a new exception, or null with one set.
fn makeError(node: *Node) ?*py.Object {
    const origin = Object.ofNode(node.origin.?);
    // Making the exception may run code.
    _ = py.incref(&origin.ob);
    defer py.decref(&origin.ob);
    const name: errors.Name, const text: [*:0]const u8 = switch (node.state) {
        .expired => .{ .DeadlineExceeded, "context deadline exceeded" },
        else => .{ .Cancelled, "context cancelled" },
    };
    const message = py.PyUnicode_FromString(text) orelse return null;
    defer py.decref(message);
    const exception = py.call(errors.get(name) orelse return null, &.{message}) orelse return null;
    if (py.PyObject_SetAttrString(exception, "context", &origin.ob) != 0) {
        py.decref(exception);
        return null;
    }
    if (origin.cause) |cause| py.PyException_SetCause(exception, py.incref(cause));
    return exception;
}

/// Raises the error of the ambient context, if that is done. True if an exception is set.
pub noinline fn raiseAmbient(p: *PyG) bool {
    const node = p.g.context orelse return false;
    if (!node.done()) return false;
    py.restoreException(makeError(node) orelse return true);
    return true;
}

/// Whether `exception` is what the end of the goroutine's ambient context has raised.
pub fn isEcho(p: *PyG, exception: *py.Object) bool {
    const node = p.g.context orelse return false;
    const origin = node.origin orelse return false;
    const kind = errors.get(.DeadlineExceeded) orelse return false;
    if (py.PyErr_GivenExceptionMatches(exception, kind) == 0) return false;
    const context = py.PyObject_GetAttrString(exception, "context") orelse {
        py.PyErr_Clear();
        return false;
    };
    defer py.decref(context);
    return context == &Object.ofNode(origin).ob;
}

// ---- the ambient one ----

/// What was ambient before a context was entered.
pub const Entered = struct { before: ?*py.Object, below: ?*Entered };

/// Takes the reference.
pub fn setAmbient(p: *PyG, object: ?*py.Object) void {
    const old = p.ambient;
    p.ambient = object;
    p.g.context = if (object) |o| self(o).obeys() else null;
    py.xdecref(old);
}

/// To a child: it runs under its parent's.
pub inline fn bequeath(parent: *const PyG, child: *goroutine.Birth) void {
    child.ambient = py.incref(parent.ambient orelse return);
    child.context = parent.g.context;
}

/// Leaves all contexts, and the one that was inherited.
pub fn leaveAll(p: *PyG) void {
    while (p.entered) |e| {
        p.entered = e.below;
        const before = e.before;
        host.gpa.destroy(e);
        py.xdecref(before);
    }
    setAmbient(p, null);
}

fn enter(o: *Object) ?*py.Object {
    const object = &o.ob;
    const p = goroutine.forCall() orelse return null;
    if (o.obeys()) |node| lane.armContext(node) catch return py.PyErr_NoMemory();
    const e = host.gpa.create(Entered) catch return py.PyErr_NoMemory();
    e.* = .{ .before = p.ambient, .below = p.entered };
    p.entered = e;
    p.ambient = null;
    setAmbient(p, py.incref(object));
    return py.incref(object);
}

fn exit(o: *Object) ?*py.Object {
    const p = goroutine.forCall() orelse return null;
    const e = p.entered;
    if (e == null or p.ambient != &o.ob) return py.raise(
        py.exc.runtimeError(),
        "a context is left by the goroutine that entered it, before those that it entered earlier",
        .{},
    );
    p.entered = e.?.below;
    const before = e.?.before;
    host.gpa.destroy(e.?);
    setAmbient(p, before);
    return py.boolean(false);
}

// ---- what they tell ----

/// The node that it obeys, its deadline looked at.
fn look(o: *Object) ?*Node {
    const node = o.obeys() orelse return null;
    lane.expireContext(node);
    return node;
}

fn done(object: *Object) ?*py.Object {
    const node = look(object);
    const o = if (node) |n| Object.ofNode(n) else object;
    if (o.chan) |ch| return py.incref(ch);
    const made = py.call(&chan.Class.python_type.ob, &.{}) orelse return null;
    // Making it may have run other code that did the same.
    if (o.chan) |ch| {
        py.decref(made);
        return py.incref(ch);
    }
    o.chan = py.incref(made);
    const n = node orelse {
        // It tells that the channel is one that is never closed: see neverCloses.
        chan.keep(made, &o.ob);
        return made;
    };
    if (n.done()) {
        closeChan(made);
    } else {
        chan.keep(made, &o.ob);
        lane.armContext(n) catch {
            py.decref(made);
            return py.PyErr_NoMemory();
        };
    }
    return made;
}

// ---- what leaks() asks ----

/// Whether `ch` is what done() of a context without cancellation gave.
pub fn neverCloses(ch: *py.Object) bool {
    const o = chan.keeperOf(ch) orelse return false;
    return Class.is(o) and self(o).obeys() == null;
}

/// Whether the context may still become done: it has a deadline, or `reaches` says that it, or one
/// that it was derived from, is alive.
pub fn mayEnd(
    o: *py.Object,
    asked: anytype,
    comptime reaches: fn (@TypeOf(asked), *py.Object) bool,
) bool {
    return mayNodeEnd(self(o).obeys() orelse return false, asked, reaches);
}

pub fn mayNodeEnd(
    node: *Node,
    asked: anytype,
    comptime reaches: fn (@TypeOf(asked), *py.Object) bool,
) bool {
    if (node.done()) return false;
    if (node.deadline != sched.never) return true;
    var it: ?*Node = node;
    while (it) |n| : (it = n.parent) if (reaches(asked, &Object.ofNode(n).ob)) return true;
    return false;
}

fn err(o: *Object) ?*py.Object {
    const node = look(o) orelse return py.returnNone();
    return if (node.done()) makeError(node) else py.returnNone();
}

/// context_cause(context, /)
pub fn causeOf(object: *py.Object) ?*py.Object {
    const o = parseContext(object, "the context") orelse return null;
    const node = look(o) orelse return py.returnNone();
    if (!node.done()) return py.returnNone();
    if (Object.ofNode(node.origin.?).cause) |cause| return py.incref(cause);
    return makeError(node);
}

fn deadline_(o: *Object) ?*py.Object {
    const node = o.obeys() orelse return py.returnNone();
    if (node.deadline == sched.never) return py.returnNone();
    return py.PyFloat_FromDouble(@as(f64, @floatFromInt(node.deadline)) / 1e9);
}

fn value_(object: *Object, wanted: *py.Object, default: ?*py.Object) ?*py.Object {
    var it: ?*Object = object;
    while (it) |o| : (it = o.parent) {
        const key = o.key orelse continue;
        if (key != wanted) {
            const same = py.PyObject_RichCompareBool(key, wanted, py.EQ);
            if (same < 0) return null;
            if (same == 0) continue;
        }
        return py.incref(o.value.?);
    }
    return py.incref(default orelse py.none());
}

fn getOrigin(o: *Object) ?*py.Object {
    const node = look(o) orelse return py.returnNone();
    const origin = node.origin orelse return py.returnNone();
    return py.incref(&Object.ofNode(origin).ob);
}

fn repr(o: *Object) ?*py.Object {
    const state = if (look(o)) |node| switch (node.state) {
        .live => "live",
        .cancelled => "cancelled",
        .expired => "deadline exceeded",
    } else "without cancellation";
    return py.print("<Context 0x{x} {s}>", .{ class.addressOf(o), state });
}

// ---- after_func ----

/// after_func(context, fn, /)
pub fn afterFunc(context: *py.Object, function: *py.Object) ?*py.Object {
    const o = parseContext(context, "the context") orelse return null;
    const detached = withoutCancel(context) orelse return null;
    const call: class.Given = .{ .args = &.{function}, .n = 1, .names = null };
    const p = @import("../module.zig").createChecked("after_func", call, false) orelse {
        py.decref(detached);
        return null;
    };
    setAmbient(p, detached);
    const object = py._PyObject_GC_New(RegistrationClass.python_type) orelse {
        goroutine.abandon(p);
        return null;
    };
    @memset(@as([*]u8, @ptrCast(object))[@sizeOf(py.Object)..@sizeOf(Registration)], 0);
    const r: *Registration = @ptrCast(object);
    py.PyObject_GC_Track(object);
    const node = look(o) orelse {
        r.p = p;
        return object;
    };
    if (node.done()) {
        py.decref(goroutine.launch(p));
        return object;
    }
    lane.armContext(node) catch {
        goroutine.abandon(p);
        py.decref(object);
        return py.PyErr_NoMemory();
    };
    r.p = p;
    link(r, Object.ofNode(node));
    return object;
}

fn link(r: *Registration, o: *Object) void {
    const node = o.own();
    r.context = @ptrCast(py.incref(&o.ob));
    r.pinned = node.parent != null or node.timed;
    if (r.pinned) _ = py.incref(&o.ob);
    r.generation = lane.generation;
    r.linked = true;
    o.registrations.pushFront(r);
    _ = py.incref(&r.ob);
}

/// The list's reference is the caller's then.
fn unlink(r: *Registration) void {
    r.context.?.registrations.remove(r);
    r.linked = false;
}

fn letGo(r: *Registration) void {
    const o = r.context orelse return;
    r.context = null;
    if (r.pinned) py.decref(&o.ob);
    py.decref(&o.ob);
}

fn stop(r: *Registration) bool {
    // Its deadline may have passed unnoticed.
    if (r.context) |o| _ = look(o);
    const p = r.pyg() orelse return false;
    r.p = null;
    const linked = r.linked;
    if (linked) unlink(r);
    goroutine.abandon(p);
    letGo(r);
    if (linked) py.decref(&r.ob);
    return true;
}

fn traverseRegistration(r: *Registration, v: class.Visitor) c_int {
    const context: ?*py.Object = if (r.context) |o| &o.ob else null;
    const p = r.pyg() orelse return v.all(&.{context});
    return v.all(&.{ context, p.function, p.handle.named_by, p.ambient });
}

fn clearRegistration(r: *Registration) void {
    const p = r.pyg();
    r.p = null;
    const linked = r.linked;
    if (linked) unlink(r);
    if (p) |g| goroutine.abandon(g);
    letGo(r);
    if (linked) py.decref(&r.ob);
}

// ---- the types ----

fn traverse(o: *Object, v: class.Visitor) c_int {
    const parent: ?*py.Object = if (o.parent) |p| &p.ob else null;
    const r = v.all(&.{ parent, o.key, o.value, o.cause, o.chan });
    if (r != 0) return r;
    var it = o.registrations.head;
    while (it) |each| : (it = each.next) {
        const visited = v.all(&.{&each.ob});
        if (visited != 0) return visited;
    }
    return 0;
}

/// Not the parent, on which the tree relies: it has no way back to here but these.
fn clear(o: *Object) void {
    while (o.registrations.head) |r| clearRegistration(r);
    py.clear(&o.value);
    py.clear(&o.key);
    py.clear(&o.cause);
    py.clear(&o.chan);
}

fn dealloc(object: *py.Object) callconv(.c) void {
    const o = self(object);
    py.PyObject_GC_UnTrack(object);
    Class.clearWeakrefs(object);
    if (o.owns()) lane.detachContext(o.own());
    clear(o);
    var up = o.parent;
    Class.free(object);
    // A long chain would overflow the stack if each freed the next.
    while (up) |u| {
        up = null;
        if (@as(i32, @truncate(u.ob.refcnt)) == 1) {
            up = u.parent;
            u.parent = null;
        }
        py.decref(&u.ob);
    }
}

pub const Class = class.Class(Object, .{
    .name = "golibx.context.Context",
    .doc =
    \\A context, as the functions of golibx.context return it. `with ctx:` makes it the ambient one:
    \\everything that waits in the block, and in goroutines started there, ends with it.
    ,
    .repr = repr,
    .traverse = traverse,
    .clear = clear,
    .methods = &.{
        class.method("done()", done,
            \\A Chan that is closed when the context is done: for select().
        ),
        class.method("err()", err,
            \\None while the context is live; then a Cancelled or a DeadlineExceeded, not raised.
        ),
        class.method("deadline()", deadline_,
            \\When the context will be cancelled at the latest, a float in seconds of
            \\time.monotonic(), or None.
        ),
        class.method("value(key, default=None)", value_,
            \\What with_value() stored under key in this context or the nearest ancestor, else
            \\default.
        ),
        class.method("_cancel()", cancelMethod,
            \\Cancels the context and all that were derived from it. Does nothing if it is done.
        ),
        class.method("_cancel_cause(cause=None)", cancelCause,
            \\As _cancel(), with the exception that is the reason.
        ),
        class.method("__enter__()", enter,
            \\Makes it the goroutine's ambient context, until the end of the block.
        ),
        class.method("__exit__(*exc_info)", exit,
            \\Makes the one before the ambient context again.
        ),
    },
    .properties = &.{class.property(
        "_origin",
        getOrigin,
        "The Context that was cancelled, this one or an ancestor, or None.",
    )},
    .slots = .{ .tp_dealloc = dealloc },
});

pub const RegistrationClass = class.Class(Registration, .{
    .name = "golibx._core.AfterFunc",
    .doc = "What context.after_func() registered.",
    .traverse = traverseRegistration,
    .clear = clearRegistration,
    .methods = &.{
        class.method("stop()", stop,
            \\Keeps the function from being called. Returns False if it was, or was kept from it
            \\before.
        ),
    },
});
