//! golibx.Once: a function that is called once, and waited for by all others who would call it.
const py = @import("py.zig");
const asynchronous = @import("asynchronous.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const object = @import("object.zig");

const Queue = @import("../sync/waiters.zig").Waiters(host.Lane);
const lane = &host.the_lane;

const Once = struct {
    state: enum { new, running, done } = .new,
    /// While it runs: goroutine.ident of the caller.
    owner: u64 = 0,
    queue: Queue = .{},
};
const O = object.Object(Once);
const of = O.of;
pub var once_type: *py.Type = undefined;

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    if (!py.noArguments("Once", args, kwargs)) return null;
    return O.make(t, .{});
}

fn do(o: *py.Object, args: py.Args, n: py.Ssize, kwnames: ?*py.Object) callconv(.c) ?*py.Object {
    if (n < 1) return py.raise(py.exc.typeError(), "do() missing the function to call", .{});
    const once = of(o);
    if (once.state == .done) return py.returnNone();
    if (py.PyCallable_Check(args[0]) == 0)
        return py.PyErr_Format(py.exc.typeError(), "do() needs a callable, not %R", args[0]);
    if (asynchronous.look("do", args[0]) == .refused) return null;
    if (once.state == .running) {
        if (once.owner == goroutine.ident()) return py.raise(
            py.exc.runtimeError(),
            "do() called by the function that this Once runs: it would wait for itself",
            .{},
        );
        return waitDone(once);
    }
    once.state = .running;
    once.owner = goroutine.ident();
    const result = py.extra.PyObject_Vectorcall(args[0], args + 1, @intCast(n - 1), kwnames);
    // Also if it raised: as in Go, where a panic counts.
    once.state = .done;
    once.queue.wakeAll(lane, .ready);
    py.decref(result orelse return null);
    return py.returnNone();
}

fn waitDone(once: *Once) ?*py.Object {
    const p = goroutine.forWait() orelse return null;
    if (once.state == .done) return py.returnNone();
    var w: Queue.Waiter = .{ .g = &p.g };
    p.g.waiting_on = O.objectOf(once);
    _ = once.queue.wait(lane, &w, .once_do, null);
    if (w.given) return py.returnNone();
    _ = goroutine.raisePending(p);
    return null;
}

fn getDone(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.boolean(of(o).state == .done);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    return py.PyUnicode_FromFormat("<Once %p %s>", o, @as([*:0]const u8, @tagName(of(o).state)));
}

const methods = [_]py.MethodDef{
    .{ .name = "do", .function = @ptrCast(&do), .flags = py.METH_FASTCALL | py.METH_KEYWORDS, .doc =
    \\do($self, fn, /, *args, **kwargs)
    \\--
    \\
    \\Calls fn(*args, **kwargs) if this is the first call of do(), else waits until that has returned.
    \\A function that raises has been called too: only the first caller sees the exception. Raises
    \\RuntimeError when fn itself calls do().
    },
    .{},
};
pub const table = points.Table.of(&methods);

const getset = [_]py.GetSetDef{
    .{
        .name = "done",
        .get = getDone,
        .doc = "Whether the function has been called and has returned.",
    },
    .{},
};

pub const spec = O.spec("golibx.Once", 0, &.{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&O.dealloc) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&O.members) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\Once()
    \\--
    \\
    \\Calls a function once, whoever comes first, as Go's sync.Once.
    },
    .{},
});
