//! A descriptor between who waits for it, the poller's edges, deadlines and close; and its next
//! life.
const std = @import("std");
const check = @import("../explorer.zig");
const threads_mod = @import("threads.zig");
const pollside = @import("../../native/pollside.zig");
const Generation = pollside.Generation;

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
        fn edge(d: *Desc, generation: Generation, read: bool, write: bool) void {
            for (d.edge(generation, read, write)) |each| {
                if (each) |w| Rt.wake(w);
            }
        }

        fn decref(d: *Desc) void {
            if (d.decref()) Rt.wake(d.takeCloser());
        }

        /// What netpoll.zig does until the file may be closed. False if it is closed already.
        fn close(d: *Desc, generation: Generation) bool {
            for (d.close(generation) orelse return false) |each| {
                if (each) |w| Rt.wake(w);
            }
            var b: Rt.Blocker = undefined;
            b.init(null, false);
            if (d.drain(&b.wait) == .waiting) _ = b.block(.io_close, null, unlock, d);
            return true;
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
            _ = m.d.open(.of(3));
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

        const Self = @This();
        const D = Descriptor(Sim);
        pub const threads = .{ .{ "waits", waits }, .{ "closes", closes }, .{ "poller", poll } };

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            _ = m.d.open(.of(3));
        }

        fn waits(m: *Self) void {
            if (!m.d.incref(0)) return;
            defer D.decref(&m.d);
            const how = D.wait(&m.d, &m.d.read, deadline);
            check.expect(how != .timeout or deadline != null, "there is no deadline");
        }

        fn closes(m: *Self) void {
            check.expect(D.close(&m.d, 0), "nobody else closes it");
            _ = m.d.recycle();
            const generation = m.d.open(.of(4));
            var b: D.Rt.Blocker = undefined;
            b.init(null, true);
            check.expect(m.d.incref(generation), "it is open");
            Sim.yieldPoint();
            const how = m.d.begin(&m.d.write, &b.wait);
            check.expect(how != .ready, "an edge of the old file says that the new one is ready");
            check.expect(how == .waiting, "nobody else waits");
            m.d.lock.unlock();
            m.d.withdraw(&m.d.write, &b.wait);
            D.decref(&m.d);
            check.expect(D.close(&m.d, generation), "it is open");
        }

        fn poll(m: *Self) void {
            D.edge(&m.d, 0, true, true);
        }

        pub fn end(m: *Self) void {
            check.expect(m.d.read.waiter == null and m.d.write.waiter == null, "nobody is queued");
        }
    };
}

pub fn Close(comptime Sim: type) type {
    return Closing(Sim, null);
}

pub fn CloseUntil(comptime Sim: type) type {
    return Closing(Sim, 5);
}

/// Calls on a handle, some of which wait, while two try to close it. Who does opens another file,
/// which gets the number and the descriptor. The table of files says which file a number is.
fn Reusing(comptime Sim: type, comptime readers: u32) type {
    return struct {
        d: D.Desc = .{},
        /// Of number 3, the only one: 0 is none.
        file: Sim.Atomic(u32) = .init(0),
        closes: Sim.Atomic(u32) = .init(0),
        handle: [files]Generation = undefined,

        const Self = @This();
        const D = Descriptor(Sim);
        const files = 2;
        const one = .{
            .{ "reads", reads },
            .{ "closes", closeAndOpen },
            .{ "closes too", closeOnly },
        };
        const two = .{ .{ "reads", reads }, .{ "closes", closeAndOpen }, .{ "writes", writes } };
        pub const threads = if (readers == 1) one else two;

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.open(0);
        }

        fn open(m: *Self, i: u32) void {
            m.file.store(i + 1, .release);
            m.handle[i] = m.d.open(.of(3));
        }

        /// A call on the first file's handle. False once it is closed.
        fn call(m: *Self, side: *D.Desc.Side) bool {
            if (!m.d.incref(m.handle[0])) return false;
            defer D.decref(&m.d);
            while (true) {
                Sim.reads(&m.d.fd);
                check.expect(m.d.fd.fd() == 3, "a call finds no file");
                // The attempt: the kernel looks at the number, and has nothing.
                check.expect(m.file.load(.acquire) == 1, "a call touches a stranger's file");
                switch (D.wait(&m.d, side, null)) {
                    .closed => return false,
                    .ready => {},
                    .timeout => check.fail("there is no deadline", .{}),
                }
            }
        }

        fn reads(m: *Self) void {
            while (m.call(&m.d.read)) {}
            // For ever.
            check.expect(!m.call(&m.d.read), "a handle that was closed is so no more");
        }

        fn writes(m: *Self) void {
            while (m.call(&m.d.write)) {}
        }

        fn close(m: *Self, i: u32) bool {
            if (!D.close(&m.d, m.handle[i])) return false;
            check.expect(m.file.load(.acquire) == i + 1, "a stranger's file is closed");
            m.file.store(0, .release);
            check.expect(m.d.recycle(), "this is not the last generation");
            return true;
        }

        fn closeAndOpen(m: *Self) void {
            if (!m.close(0)) return;
            _ = m.closes.fetchAdd(1, .acq_rel);
            m.open(1);
            check.expect(m.d.incref(m.handle[1]), "a new handle is open");
            check.expect(m.file.load(.acquire) == 2, "a call touches a stranger's file");
            D.decref(&m.d);
            check.expect(m.close(1), "a new handle is open");
        }

        fn closeOnly(m: *Self) void {
            if (m.close(0)) _ = m.closes.fetchAdd(1, .acq_rel);
        }

        pub fn end(m: *Self) void {
            check.expect(m.closes.raw == 1, "one of those who close it does");
            check.expect(m.file.raw == 0, "the file is closed");
            const idle = m.d.read.waiter == null and m.d.write.waiter == null and m.d.closer == null;
            check.expect(idle, "nobody is queued");
        }
    };
}

pub fn Reuse(comptime Sim: type) type {
    return Reusing(Sim, 1);
}

pub fn ReuseTwo(comptime Sim: type) type {
    return Reusing(Sim, 2);
}
