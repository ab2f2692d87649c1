//! golibx.Semaphore: sync/semaphore.zig as a Python object.
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const arguments = @import("../arguments.zig");
const goroutine = @import("../host/goroutine.zig");
const Place = @import("../../core/waiters.zig").Place;
const Limit = @import("../timeouts.zig").Limit;

const S = struct {
    size: u64,
    permits: @import("../../sync/semaphore.zig").Semaphore(host.Rt, true),

    fn held(s: *const S) u64 {
        return s.size - s.permits.free;
    }
};

fn new(size: *py.Object) ?S {
    const what = "the number of a Semaphore's permits";
    const n = arguments.within(size, what, 1, arguments.no_limit) orelse return null;
    return .{ .size = @intCast(n), .permits = .{ .free = @intCast(n) } };
}

/// How many permits a call is about; 1 if it does not say.
const Permits = struct {
    n: u64 = 1,

    pub inline fn fromPython(given: ?*py.Object) ?Permits {
        const value = given orelse return .{};
        const what = "the number of permits";
        const n = arguments.within(value, what, 1, arguments.no_limit) orelse return null;
        return .{ .n = @intCast(n) };
    }

    /// False with an exception set.
    fn exist(p: Permits, s: *S) bool {
        if (p.n <= s.size) return true;
        const text = "a Semaphore of {d} can never give {d} permits";
        return py.raises(py.exc.valueError(), text, .{ s.size, p.n });
    }
};

noinline fn acquireSlow(s: *S, n: u64, limit: Limit) ?bool {
    const deadline = limit.deadline();
    var place: Place = .end;
    while (true) : (place = .front) {
        const p = goroutine.forWait() orelse return null;
        if (s.permits.tryAcquire(n)) return true;
        p.g.waiting_on = class.objectOf(s);
        switch (s.permits.wait(place, &p.g, n, deadline)) {
            .ready, .closed => return true,
            .timeout => return false,
            // Unless it was for a signal's handler.
            .interrupted => if (goroutine.raisePending(p)) return null,
        }
    }
}

/// One that waits for it has left, or does not go on soon.
pub fn serveOthers(o: *anyopaque) void {
    Class.of(@ptrCast(@alignCast(o))).permits.serveOthers();
}

fn acquire(s: *S, permits: Permits, limit: Limit) ?bool {
    if (!permits.exist(s)) return null;
    if (s.permits.tryAcquire(permits.n)) return true;
    if (limit == .poll) return false;
    return acquireSlow(s, permits.n, limit);
}

fn enter(s: *S) ?bool {
    return if (s.permits.tryAcquire(1)) true else acquireSlow(s, 1, .forever);
}

fn tryAcquire(s: *S, permits: Permits) ?bool {
    return if (permits.exist(s)) s.permits.tryAcquire(permits.n) else null;
}

fn release(s: *S, permits: Permits) ?*py.Object {
    if (permits.n > s.held()) return py.raise(
        py.exc.valueError(),
        "release of {d} permits of a Semaphore of which {d} are held",
        .{ permits.n, s.held() },
    );
    if (!s.permits.release(permits.n)) unreachable; // so many were taken
    return py.returnNone();
}

fn exit(s: *S) ?*py.Object {
    return release(s, .{});
}

fn available(s: *S) u64 {
    return s.permits.free;
}

fn repr(s: *S) ?*py.Object {
    return py.print("<Semaphore 0x{x} {d}/{d}>", .{ class.addressOf(s), available(s), s.size });
}

pub const Class = class.Class(S, .{
    .name = "golibx.Semaphore",
    .doc =
    \\n permits, as Go's semaphore.Weighted: `with s:` takes one. First come, first served, also if
    \\the first wants more than there are.
    ,
    .new = class.constructor("Semaphore(n)", new),
    .repr = repr,
    .is_waited_on = true,
    .methods = &.{
        class.method("acquire(n=1, timeout=None)", acquire,
            \\Takes n permits, waiting for them behind all that came before, at most timeout
            \\seconds. Returns whether it has: False only when the time is up. Raises ValueError if
            \\there never are so many.
        ),
        class.method("try_acquire(n=1)", tryAcquire,
            \\Takes n permits if they are there and no goroutine waits; returns whether it has.
        ),
        class.method("release(n=1)", release,
            \\Gives n permits back. Raises ValueError if fewer are held.
        ),
        class.method("__enter__()", enter, "Takes one permit."),
        class.method("__exit__(*exc_info)", exit, "Gives it back."),
    },
    .properties = &.{
        class.field(S, "size", "size", "How many permits there are, an int."),
        class.property("available", available, "How many of them are free, an int."),
    },
});
