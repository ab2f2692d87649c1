//! golibx.Event: a flag that goroutines wait for, as threading.Event.
const py = @import("py.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const timeouts = @import("timeouts.zig");
const object = @import("object.zig");

const Queue = @import("../sync/waiters.zig").Waiters(host.Lane);
const lane = &host.the_lane;

const Event = struct { flag: bool = false, queue: Queue = .{} };
const O = object.Object(Event);
const of = O.of;
pub var event_type: *py.Type = undefined;

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    if (!py.noArguments("Event", args, kwargs)) return null;
    return O.make(t, .{});
}

fn set(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    of(o).flag = true;
    of(o).queue.wakeAll(lane, .ready);
    return py.returnNone();
}

fn clear(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    of(o).flag = false;
    return py.returnNone();
}

fn isSet(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.boolean(of(o).flag);
}

fn wait(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("wait", &.{"timeout"}, 0, args, n, kw) orelse return null;
    const limit = timeouts.parse(given[0]) orelse return null;
    const e = of(o);
    if (e.flag) return py.boolean(true);
    if (limit == .poll) return py.boolean(false);
    const p = goroutine.forWait() orelse return null;
    if (e.flag) return py.boolean(true);
    var w: Queue.Waiter = .{ .g = &p.g };
    p.g.waiting_on = o;
    const wake = e.queue.wait(lane, &w, .event_wait, limit.deadline());
    // Set while it waited, though it may have been cleared since.
    if (w.given) return py.boolean(true);
    if (wake == .timeout) return py.boolean(false);
    _ = goroutine.raisePending(p);
    return null;
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    return py.PyUnicode_FromFormat(
        "<Event %p %s>",
        o,
        @as([*:0]const u8, if (of(o).flag) "set" else "unset"),
    );
}

const methods = [_]py.MethodDef{
    .{ .name = "set", .function = @ptrCast(&set), .flags = py.METH_NOARGS, .doc =
    \\set($self, /)
    \\--
    \\
    \\Sets the flag, and wakes all that wait for it.
    },
    .{ .name = "clear", .function = @ptrCast(&clear), .flags = py.METH_NOARGS, .doc =
    \\clear($self, /)
    \\--
    \\
    \\Clears the flag.
    },
    .{ .name = "is_set", .function = @ptrCast(&isSet), .flags = py.METH_NOARGS, .doc =
    \\is_set($self, /)
    \\--
    \\
    \\Whether the flag is set.
    },
    .{ .name = "wait", .function = @ptrCast(&wait), .flags = py.METH_FASTCALL | py.METH_KEYWORDS, .doc =
    \\wait($self, /, timeout=None)
    \\--
    \\
    \\Waits until the flag is set, at most timeout seconds; returns whether it was.
    },
    .{},
};
pub const table = points.Table.of(&methods);

pub const spec = O.spec("golibx.Event", 0, &.{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&O.dealloc) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&O.members) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\Event()
    \\--
    \\
    \\A flag, at first not set, that goroutines wait for; as threading.Event.
    },
    .{},
});
