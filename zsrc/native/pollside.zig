//! One descriptor's two directions: whether an attempt may succeed, and who waits for that.
//!
//! A descriptor is registered once, edge-triggered. An edge marks the direction as ready, or wakes its
//! waiter; who waits takes the mark. Spurious wake-ups are allowed, a lost one is not: the caller has
//! tried and was told to wait, so an edge after that attempt finds either the mark unset or him
//! queued, both under `lock`.
const wait_mod = @import("wait.zig");

pub const Begin = enum { ready, closed, busy, waiting };

pub fn PollDesc(comptime Rt: type) type {
    return struct {
        const Self = @This();
        const Env = Rt.Env;
        const Wait = wait_mod.Wait(Env);
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        pub const Side = struct { ready: bool = false, waiter: ?*Wait = null };

        lock: Env.Lock = .{},
        fd: i32 = -1,
        index: u32 = 0,
        /// Changes with each close, so that an event that was fetched before finds nobody.
        seq: u32 = 0,
        closed: bool = true,
        read: Side = .{},
        write: Side = .{},
        next_free: ?*Self = null,

        pub fn open(d: *Self, fd: i32) void {
            d.lock.lock();
            defer d.lock.unlock();
            d.fd = fd;
            d.closed = false;
            d.read = .{};
            d.write = .{};
        }

        /// Queues `w` and returns `waiting` with the lock held, or says why there is nothing to wait for.
        pub fn begin(d: *Self, side: *Side, w: *Wait) Begin {
            d.lock.lock();
            if (!d.closed and !side.ready and side.waiter == null) {
                side.waiter = w;
                return .waiting;
            }
            defer d.lock.unlock();
            if (d.closed) return .closed;
            if (side.waiter != null) return .busy;
            side.ready = false;
            return .ready;
        }

        /// After a wait that was not served.
        pub fn withdraw(d: *Self, side: *Side, w: *Wait) void {
            d.lock.lock();
            defer d.lock.unlock();
            if (side.waiter == w) side.waiter = null;
        }

        /// An edge; `seq` is that of the registration it belongs to. Who is to be woken comes back.
        pub fn edge(d: *Self, seq: u32, read: bool, write: bool) [2]?*Wait {
            d.lock.lock();
            defer d.lock.unlock();
            const stale = d.seq != seq and planted != .stale_edge;
            if (d.closed or stale) return .{ null, null };
            return .{ if (read) mark(&d.read) else null, if (write) mark(&d.write) else null };
        }

        fn mark(side: *Side) ?*Wait {
            if (planted != .edge_forgotten) side.ready = true;
            const w = side.waiter orelse return null;
            side.waiter = null;
            if (!w.claim(.served)) return null; // its time was up: the next attempt takes the mark
            side.ready = false;
            return w;
        }

        /// Null if it is closed already; otherwise who waits, to be woken.
        pub fn close(d: *Self) ?[2]?*Wait {
            d.lock.lock();
            defer d.lock.unlock();
            if (d.closed) return null;
            d.closed = true;
            d.seq +%= 1;
            var woken: [2]?*Wait = .{ null, null };
            for ([_]*Side{ &d.read, &d.write }, &woken) |side, *out| {
                const w = side.waiter orelse continue;
                side.waiter = null;
                if (planted != .close_wakes_nobody and w.claim(.closed)) out.* = w;
            }
            return woken;
        }
    };
}
