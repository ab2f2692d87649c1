//! golibx.Semaphore: sync/semaphore.zig as a Python object.
const py = @import("py.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const timeouts = @import("timeouts.zig");
const object = @import("object.zig");

const S = @import("../sync/semaphore.zig").Semaphore(host.Lane);
const O = object.Object(S);
const of = O.of;
const lane = &host.the_lane;

pub var semaphore_type: *py.Type = undefined;

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parseNew("Semaphore", &.{"n"}, 1, args, kwargs) orelse return null;
    const size = object.integer(given[0].?, "the number of a Semaphore's permits", 1, object.most) orelse
        return null;
    return O.make(t, .{ .size = @intCast(size) });
}

/// How many permits a call is about; 1 if it does not say.
fn permits(s: *S, given: ?*py.Object) ?u64 {
    const n = object.integer(given orelse return 1, "the number of permits", 1, object.most) orelse
        return null;
    if (n > s.size) {
        const text = "a Semaphore of {d} can never give {d} permits";
        _ = py.raise(py.exc.valueError(), text, .{ s.size, n });
        return null;
    }
    return @intCast(n);
}

noinline fn acquireSlow(s: *S, n: u64, limit: timeouts.Limit) ?*py.Object {
    const p = goroutine.forWait() orelse return null;
    if (s.tryAcquire(lane, n)) return py.boolean(true);
    p.g.waiting_on = O.objectOf(s);
    switch (s.acquireWait(lane, &p.g, n, limit.deadline())) {
        .ready, .closed => return py.boolean(true),
        .timeout => return py.boolean(false),
        .interrupted => {
            _ = goroutine.raisePending(p);
            return null;
        },
    }
}

fn acquire(
    o: *py.Object,
    args: py.Args,
    count: py.Ssize,
    kw: ?*py.Object,
) callconv(.c) ?*py.Object {
    if (count == 0 and kw == null) return enter(o, null);
    const s = of(o);
    const given = py.parse("acquire", &.{ "n", "timeout" }, 0, args, count, kw) orelse return null;
    const n = permits(s, given[0]) orelse return null;
    const limit = timeouts.parse(given[1]) orelse return null;
    if (s.tryAcquire(lane, n)) return py.boolean(true);
    if (limit == .poll) return py.boolean(false);
    return acquireSlow(s, n, limit);
}

fn enter(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    if (of(o).tryAcquire(lane, 1)) return py.boolean(true);
    return acquireSlow(of(o), 1, .forever);
}

fn tryAcquire(
    o: *py.Object,
    args: py.Args,
    count: py.Ssize,
    kw: ?*py.Object,
) callconv(.c) ?*py.Object {
    const given = py.parse("try_acquire", &.{"n"}, 0, args, count, kw) orelse return null;
    const n = permits(of(o), given[0]) orelse return null;
    return py.boolean(of(o).tryAcquire(lane, n));
}

fn drop(s: *S, n: u64) ?*py.Object {
    s.release(lane, n) catch return py.raise(
        py.exc.valueError(),
        "release of {d} permits of a Semaphore of which {d} are held",
        .{ n, s.held },
    );
    return py.returnNone();
}

fn release(
    o: *py.Object,
    args: py.Args,
    count: py.Ssize,
    kw: ?*py.Object,
) callconv(.c) ?*py.Object {
    if (count == 0 and kw == null) return drop(of(o), 1);
    const given = py.parse("release", &.{"n"}, 0, args, count, kw) orelse return null;
    const n: i64 = if (given[0]) |v|
        object.integer(v, "the number of permits", 1, object.most) orelse return null
    else
        1;
    return drop(of(o), @intCast(n));
}

fn exit(o: *py.Object, _: py.Args, _: py.Ssize) callconv(.c) ?*py.Object {
    return drop(of(o), 1);
}

fn getSize(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(of(o).size);
}

fn getAvailable(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(of(o).size - of(o).held);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    const s = of(o);
    return py.PyUnicode_FromFormat(
        "<Semaphore %p %llu/%llu>",
        o,
        @as(c_ulonglong, s.size - s.held),
        @as(c_ulonglong, s.size),
    );
}

const fast = py.METH_FASTCALL | py.METH_KEYWORDS;

const methods = [_]py.MethodDef{
    .{ .name = "acquire", .function = @ptrCast(&acquire), .flags = fast, .doc =
    \\acquire($self, /, n=1, timeout=None)
    \\--
    \\
    \\Takes n permits, waiting for them behind all who came before, at most timeout seconds. Returns
    \\whether it has: False only when the time is up. Raises ValueError if there never are so many.
    },
    .{ .name = "try_acquire", .function = @ptrCast(&tryAcquire), .flags = fast, .doc =
    \\try_acquire($self, /, n=1)
    \\--
    \\
    \\Takes n permits if they are there and nobody waits; returns whether it has.
    },
    .{ .name = "release", .function = @ptrCast(&release), .flags = fast, .doc =
    \\release($self, /, n=1)
    \\--
    \\
    \\Gives n permits back. Raises ValueError if fewer are held.
    },
    .{
        .name = "__enter__",
        .function = @ptrCast(&enter),
        .flags = py.METH_NOARGS,
        .doc = "Takes one permit.",
    },
    .{
        .name = "__exit__",
        .function = @ptrCast(&exit),
        .flags = py.METH_FASTCALL,
        .doc = "Gives it back.",
    },
    .{},
};
pub const table = points.Table.of(&methods);

const getset = [_]py.GetSetDef{
    .{ .name = "size", .get = getSize, .doc = "How many permits there are, an int." },
    .{ .name = "available", .get = getAvailable, .doc = "How many of them nobody holds, an int." },
    .{},
};

pub const spec = O.spec("golibx.Semaphore", 0, &.{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&O.dealloc) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&O.members) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\Semaphore(n)
    \\--
    \\
    \\n permits, as Go's semaphore.Weighted: `with s:` takes one. First come, first served, also if
    \\the first wants more than there are.
    },
    .{},
});
