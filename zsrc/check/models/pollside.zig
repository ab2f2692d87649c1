//! A descriptor between who waits for it, the poller's edges, deadlines and close.
const std = @import("std");
const check = @import("../explorer.zig");
const threads_mod = @import("threads.zig");
const pollside = @import("../../native/pollside.zig");

fn Descriptor(comptime Sim: type) type {
    return struct {
        const Rt = threads_mod.Rt(Sim);
        const Desc = pollside.PollDesc(Rt);

        fn wait(d: *Desc, side: *Desc.Side, until: ?u64) enum { ready, closed, timeout } {
            var b: Rt.Blocker = undefined;
            b.init(null, true);
            switch (d.begin(side, &b.wait)) {
                .ready => return .ready,
                .closed => return .closed,
                .busy => check.fail("nobody else waits", .{}),
                .waiting => {},
            }
            switch (b.block(.io_read, until, unlock, d)) {
                .served => return .ready,
                .closed => return .closed,
                .timeout, .interrupted => {
                    d.withdraw(side, &b.wait);
                    return .timeout;
                },
            }
        }

        fn unlock(raw: *anyopaque) bool {
            const d: *Desc = @ptrCast(@alignCast(raw));
            d.lock.unlock();
            return true;
        }

        /// The poller's part.
        fn edge(d: *Desc, seq: u32, read: bool, write: bool) void {
            for (d.edge(seq, read, write)) |each| {
                if (each) |w| Rt.wake(w);
            }
        }

        fn close(d: *Desc) void {
            for (d.close().?) |each| {
                if (each) |w| Rt.wake(w);
            }
        }
    };
}

/// Bytes arrive one by one, each with an edge; a reader takes what there is, and waits when there
/// is nothing, once with a deadline. A writer waits for the other direction.
pub fn Edges(comptime Sim: type) type {
    return struct {
        d: D.Desc = .{},
        bytes: Sim.Atomic(u32) = .init(0),
        room: Sim.Atomic(u32) = .init(0),

        const Self = @This();
        const D = Descriptor(Sim);
        const total = 2;
        pub const threads = .{ .{ "reader", read }, .{ "writer", write }, .{ "poller", poll } };

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.d.open(3);
        }

        fn read(m: *Self) void {
            var taken: u32 = 0;
            var deadline: ?u64 = 5;
            while (true) {
                taken += m.bytes.swap(0, .acq_rel);
                if (taken == total) return;
                const how = D.wait(&m.d, &m.d.read, deadline);
                check.expect(how != .closed, "nobody closes it");
                deadline = null;
            }
        }

        fn write(m: *Self) void {
            while (m.room.load(.acquire) == 0) _ = D.wait(&m.d, &m.d.write, null);
        }

        fn poll(m: *Self) void {
            _ = m.bytes.fetchAdd(1, .acq_rel);
            D.edge(&m.d, 0, true, false);
            _ = m.bytes.fetchAdd(1, .acq_rel);
            m.room.store(1, .release);
            D.edge(&m.d, 0, true, true);
        }

        pub fn end(m: *Self) void {
            check.expect(m.d.read.waiter == null and m.d.write.waiter == null, "nobody is queued");
        }
    };
}

/// One waits, with or without a deadline, another closes and opens anew, and the poller delivers an
/// edge that it has fetched before.
fn Closing(comptime Sim: type, comptime deadline: ?u64) type {
    return struct {
        d: D.Desc = .{},
        edges: u32 = 0,

        const Self = @This();
        const D = Descriptor(Sim);
        pub const threads = .{ .{ "waits", waits }, .{ "closes", closes }, .{ "poller", poll } };

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.d.open(3);
        }

        fn waits(m: *Self) void {
            // Until the close: an edge may come once before.
            if (D.wait(&m.d, &m.d.read, deadline) == .closed) return;
            if (deadline == null) m.edges += 1;
        }

        fn closes(m: *Self) void {
            D.close(&m.d);
            m.d.open(4);
            var b: D.Rt.Blocker = undefined;
            b.init(null, true);
            // The other direction, since the one may be waited for.
            Sim.yieldPoint();
            const how = m.d.begin(&m.d.write, &b.wait);
            check.expect(how != .ready, "an edge of the old file says that the new one is ready");
            if (how == .waiting) m.d.lock.unlock();
            D.close(&m.d);
        }

        fn poll(m: *Self) void {
            D.edge(&m.d, 0, true, true);
        }
    };
}

pub fn Close(comptime Sim: type) type {
    return Closing(Sim, null);
}

pub fn CloseUntil(comptime Sim: type) type {
    return Closing(Sim, 5);
}
