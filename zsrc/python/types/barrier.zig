//! golibx.Barrier: sync/barrier.zig as a Python object.
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const errors = @import("../errors.zig");
const arguments = @import("../arguments.zig");
const goroutine = @import("../host/goroutine.zig");
const Limit = @import("../timeouts.zig").Limit;

const B = @import("../../sync/barrier.zig").Barrier(host.Rt);

fn new(given: *py.Object) ?B {
    const what = "the parties of a Barrier";
    const parties = arguments.within(given, what, 1, arguments.no_limit) orelse return null;
    return .{ .parties = @intCast(parties) };
}

fn wait(b: *B, limit: Limit) ?u64 {
    if (b.broken) return raiseBroken();
    if (b.complete()) |place| return place;
    if (limit == .poll) {
        b.abort();
        return raiseBroken();
    }
    const p = goroutine.forWait() orelse return null;
    // Others may have run in forWait.
    if (b.broken) return raiseBroken();
    if (b.complete()) |place| return place;
    p.g.waiting_on = class.objectOf(b);
    switch (b.wait(&p.g, limit.deadline())) {
        .place => |place| return place,
        .broken => return raiseBroken(),
        .interrupted => {
            _ = goroutine.raisePending(p);
            return null;
        },
    }
}

fn raiseBroken() ?u64 {
    _ = errors.raise(.BrokenBarrierError, "the barrier is broken", .{});
    return null;
}

fn reset(b: *B) void {
    b.reset();
}

fn abort(b: *B) void {
    b.abort();
}

fn waiting(b: *B) u64 {
    return b.waiting();
}

fn repr(b: *B) ?*py.Object {
    return py.print("<Barrier 0x{x} {d}/{d}{s}>", .{
        class.addressOf(b),
        b.waiting(),
        b.parties,
        if (b.broken) " broken" else "",
    });
}

pub const Class = class.Class(B, .{
    .name = "golibx.Barrier",
    .doc =
    \\Goroutines that go on together once `parties` of them wait, round after round; as
    \\threading.Barrier.
    ,
    .new = class.constructor("Barrier(parties)", new),
    .repr = repr,
    .is_waited_on = true,
    .methods = &.{
        class.method("wait(timeout=None)", wait,
            \\Waits until all parties do, at most timeout seconds. Returns the place in which the
            \\caller came, an int from 0. Raises BrokenBarrierError, also in all others, when the
            \\time is up; and when another party has left the round that way or because it was
            \\cancelled, or abort() or reset() was called.
        ),
        class.method("reset()", reset,
            \\Makes it as new. Goroutines that wait get BrokenBarrierError.
        ),
        class.method("abort()", abort,
            \\Breaks it: goroutines that wait, or come later, get BrokenBarrierError until reset().
        ),
    },
    .properties = &.{
        class.field(B, "parties", "parties", "How many have to come, an int."),
        class.property("n_waiting", waiting, "How many of them wait, an int."),
        class.field(B, "broken", "broken", "Whether it is broken."),
    },
});
