//! queue.SimpleQueue in goroutines: get() from an empty one parks the goroutine until something is
//! put in. Who puts, a goroutine or a thread, wakes the one that has waited longest.
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const arguments = @import("../arguments.zig");
const identity = @import("../host/identity.zig");
const parking = @import("../host/parking.zig");
const replace = @import("../host/replace.zig");
const timeouts = @import("../timeouts.zig");

const lane = &host.the_lane;

/// That of the queues that are no subclass's, once a goroutine has waited at one.
pub var queue_type: ?*py.Object = null;

/// What it looks like inside differs between versions: its own methods are asked.
const Queue = extern struct {
    ob: py.Object,

    pub fn tryTake(q: *Queue, _: u64) bool {
        const empty = Empty.callOriginal(.{ .self = &q.ob, .args = undefined, .n = 0 }) orelse {
            py.PyErr_Clear();
            return true; // get() says what is wrong
        };
        defer py.decref(empty);
        return !py.isTrue(empty);
    }
};

const signature: arguments.Signature = .of("get(block=True, timeout=None)");

const Get = replace.Replacement("_queue", "SimpleQueue.get", identity.inGoroutine, get);

fn get(c: replace.Call) ?*py.Object {
    const q: *Queue = @ptrCast(c.self.?);
    if (q.tryTake(0) or lane.here() == null) return Get.callOriginal(c);
    const given = arguments.parse(signature, c.args, c.n, c.names) orelse return refuse(c);
    const blocks = if (given[0]) |block| py.PyObject_IsTrue(block) else 1;
    if (blocks < 0) return null;
    if (blocks == 0) return Get.callOriginal(c);
    var limit: timeouts.Limit = .forever;
    if (given[1]) |timeout| if (timeout != py.none()) {
        const seconds = py.PyFloat_AsDouble(timeout);
        // Those that are for ever here, some versions refuse.
        if (!(seconds >= 0 and seconds < timeouts.longest_s) or py.PyErr_Occurred() != null)
            return refuse(c);
        limit = timeouts.fromSeconds(seconds) orelse return null;
    };
    if (limit == .poll) return Get.callOriginal(c);
    if (c.class) |class| queue_type = class;
    // Either there is something, or the original raises Empty.
    _ = parking.take(q, 0, limit, .may_raise, parking.giveNothing) orelse return null;
    return Get.callOriginal(.{ .self = c.self, .class = c.class, .args = &.{py.false_()}, .n = 1 });
}

/// Of what the original refuses at once, in this version's words.
fn refuse(c: replace.Call) ?*py.Object {
    py.PyErr_Clear();
    return Get.callOriginal(c);
}

/// Never replaced: what it does is asked for.
const Empty = replace.Replacement("_queue", "SimpleQueue.empty", never, unused);

inline fn never() bool {
    return false;
}

fn unused(c: replace.Call) ?*py.Object {
    return Empty.callOriginal(c);
}

pub const all = .{
    Empty,
    Get,
    parking.Waking("_queue", "SimpleQueue.put").Replaced,
    parking.Waking("_queue", "SimpleQueue.put_nowait").Replaced,
};
