//! golibx.Barrier: sync/barrier.zig as a Python object.
const py = @import("py.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const errors = @import("errors.zig");
const goroutine = @import("goroutine.zig");
const timeouts = @import("timeouts.zig");
const object = @import("object.zig");

const B = @import("../sync/barrier.zig").Barrier(host.Lane);
const O = object.Object(B);
const of = O.of;
const lane = &host.the_lane;

pub var barrier_type: *py.Type = undefined;

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parseNew("Barrier", &.{"parties"}, 1, args, kwargs) orelse return null;
    const parties = object.integer(
        given[0].?,
        "the parties of a Barrier",
        1,
        object.most,
    ) orelse return null;
    return O.make(t, .{ .parties = @intCast(parties) });
}

fn wait(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("wait", &.{"timeout"}, 0, args, n, kw) orelse return null;
    const limit = timeouts.parse(given[0]) orelse return null;
    const b = of(o);
    if (b.broken) return brokenError();
    if (b.complete(lane)) |place| return py.PyLong_FromUnsignedLongLong(place);
    if (limit == .poll) {
        b.abort(lane);
        return brokenError();
    }
    const p = goroutine.forWait() orelse return null;
    // Others may have run in forWait.
    if (b.broken) return brokenError();
    if (b.complete(lane)) |place| return py.PyLong_FromUnsignedLongLong(place);
    p.g.waiting_on = o;
    switch (b.wait(lane, &p.g, limit.deadline())) {
        .place => |place| return py.PyLong_FromUnsignedLongLong(place),
        .broken => return brokenError(),
        .interrupted => {
            _ = goroutine.raisePending(p);
            return null;
        },
    }
}

fn brokenError() ?*py.Object {
    return errors.raise(.BrokenBarrierError, "the barrier is broken", .{});
}

fn reset(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    of(o).reset(lane);
    return py.returnNone();
}

fn abort(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    of(o).abort(lane);
    return py.returnNone();
}

fn getParties(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(of(o).parties);
}

fn getWaiting(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(of(o).waiting(lane));
}

fn getBroken(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.boolean(of(o).broken);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    const b = of(o);
    return py.PyUnicode_FromFormat(
        "<Barrier %p %llu/%llu%s>",
        o,
        @as(c_ulonglong, b.waiting(lane)),
        @as(c_ulonglong, b.parties),
        @as([*:0]const u8, if (b.broken) " broken" else ""),
    );
}

const methods = [_]py.MethodDef{
    .{ .name = "wait", .function = @ptrCast(&wait), .flags = py.METH_FASTCALL | py.METH_KEYWORDS, .doc =
    \\wait($self, /, timeout=None)
    \\--
    \\
    \\Waits until all parties do, at most timeout seconds. Returns the place in which the caller came,
    \\an int from 0. Raises BrokenBarrierError, also in all others, when the time is up; and when
    \\another party has left the round that way or because it was cancelled, or somebody has called
    \\abort() or reset().
    },
    .{ .name = "reset", .function = @ptrCast(&reset), .flags = py.METH_NOARGS, .doc =
    \\reset($self, /)
    \\--
    \\
    \\Makes it as new. Those who wait get BrokenBarrierError.
    },
    .{ .name = "abort", .function = @ptrCast(&abort), .flags = py.METH_NOARGS, .doc =
    \\abort($self, /)
    \\--
    \\
    \\Breaks it: those who wait, and those who come, get BrokenBarrierError until reset().
    },
    .{},
};
pub const table = points.Table.of(&methods);

const getset = [_]py.GetSetDef{
    .{ .name = "parties", .get = getParties, .doc = "How many have to come, an int." },
    .{ .name = "n_waiting", .get = getWaiting, .doc = "How many of them wait, an int." },
    .{ .name = "broken", .get = getBroken, .doc = "Whether it is broken." },
    .{},
};

pub const spec = O.spec("golibx.Barrier", 0, &.{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&O.dealloc) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&O.members) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\Barrier(parties)
    \\--
    \\
    \\Goroutines that go on together once `parties` of them wait, round after round; as
    \\threading.Barrier.
    },
    .{},
});
