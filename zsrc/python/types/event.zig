//! golibx.Event: a flag that goroutines wait for, as threading.Event.
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const Limit = @import("../timeouts.zig").Limit;

const Queue = host.Queue;
const Rt = host.Rt;

const Event = struct { flag: bool = false, queue: Queue = .{} };

fn set(e: *Event) void {
    e.flag = true;
    e.queue.end(&Rt.no_lock, .ready);
}

fn clear(e: *Event) void {
    e.flag = false;
}

fn isSet(e: *Event) bool {
    return e.flag;
}

fn wait(e: *Event, limit: Limit) ?bool {
    if (e.flag) return true;
    if (limit == .poll) return false;
    const p = goroutine.forWait() orelse return null;
    if (e.flag) return true;
    var w: Queue.Waiter = .{};
    p.g.waiting_on = class.objectOf(e);
    const wake = e.queue.wait(&Rt.no_lock, &w, &p.g, .event_wait, limit.deadline());
    // Set while it waited, though it may have been cleared since.
    if (w.given) return true;
    if (wake == .timeout) return false;
    _ = goroutine.raisePending(p);
    return null;
}

fn repr(e: *Event) ?*py.Object {
    return py.print("<Event 0x{x} {s}>", .{ class.addressOf(e), if (e.flag) "set" else "unset" });
}

pub const Class = class.Class(Event, .{
    .name = "golibx.Event",
    .doc = "A flag, at first not set, that goroutines wait for; as threading.Event.",
    .new = class.constructor("Event()", Event),
    .repr = repr,
    .is_waited_on = true,
    .methods = &.{
        class.method("set()", set, "Sets the flag, and wakes all that wait for it."),
        class.method("clear()", clear, "Clears the flag."),
        class.method("is_set()", isSet, "Whether the flag is set."),
        class.method("wait(timeout=None)", wait,
            \\Waits until the flag is set, at most timeout seconds; returns whether it was.
        ),
    },
});
