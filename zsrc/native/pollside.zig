//! One descriptor: who is inside a call on it, its close, and of each direction whether an attempt
//! may succeed, and who waits for that.
//!
//! A descriptor is used again for other files, so `state` says which one it is for and how long: a
//! generation, whether that is closed, and the calls inside. A call begins with `incref`, one
//! compare-and-swap that fails for another generation and after the close, and ends with `decref`.
//! So until the last call is out, which `close` and `drain` wait for, `fd` is the number of this
//! file and of no other, and the descriptor is not used again. Go's internal/poll fdMutex does the
//! same.
//!
//! A descriptor is registered once, edge-triggered. An edge marks the direction as ready, or wakes
//! its waiter; who waits takes the mark. Spurious wake-ups are allowed, a lost one is not: the
//! caller has tried and was told to wait, so an edge after that attempt finds either the mark unset
//! or him queued, both under `lock`. Likewise a close finds him queued, or he finds the close.
const os = @import("../os/os.zig");
const wait_mod = @import("wait.zig");

pub const Begin = enum { ready, closed, busy, waiting };

/// The calls that can be inside at once; more than there are threads.
pub const refs_bits = 20;
/// A handle has a descriptor's index where its state has the calls (netpoll.zig).
pub const generation_shift = refs_bits + 1;
pub const Generation = u43;

/// No file gets this one.
pub const last_generation = @import("std").math.maxInt(Generation);

const one_ref: u64 = 1;
const refs_mask: u64 = (1 << refs_bits) - 1;
const closed_bit: u64 = 1 << refs_bits;

pub fn PollDesc(comptime Rt: type) type {
    return struct {
        const Self = @This();
        const Env = Rt.Env;
        const Wait = wait_mod.Wait(Env);
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        pub const Side = struct { ready: bool = false, waiter: ?*Wait = null };

        /// Generation, closed, calls inside. Only `recycle` changes the generation.
        state: Env.Atomic(u64) = .init(closed_bit),
        lock: Env.Lock = .{},
        /// From `open` to `recycle`. A call inside may read it.
        fd: os.Handle = .none,
        index: u32 = 0,
        read: Side = .{},
        write: Side = .{},
        /// Who has closed it and waits for the calls inside.
        closer: ?*Wait = null,
        next_free: ?*Self = null,

        /// Of one that nobody uses. Returns its generation.
        pub fn open(d: *Self, fd: os.Handle) Generation {
            d.lock.lock();
            defer d.lock.unlock();
            Env.writes(&d.fd);
            d.fd = fd;
            d.read = .{};
            d.write = .{};
            const generation = d.present();
            // Release pairs with the acquire in `incref`.
            d.state.store(@as(u64, generation) << generation_shift, .release);
            return generation;
        }

        fn present(d: *const Self) Generation {
            return @intCast(d.state.load(.monotonic) >> generation_shift);
        }

        /// Null unless it is open.
        pub fn openGeneration(d: *const Self) ?Generation {
            return if (d.isClosed()) null else d.present();
        }

        fn isFor(state: u64, generation: Generation) bool {
            if (planted == .closed_unseen) return state >> generation_shift == generation;
            return state & ~refs_mask == @as(u64, generation) << generation_shift;
        }

        /// A call begins. False if the handle of this generation is closed.
        pub inline fn incref(d: *Self, generation: Generation) bool {
            return d.enter(generation, 0);
        }

        inline fn enter(d: *Self, generation: Generation, with: u64) bool {
            var state = d.state.load(.monotonic);
            while (isFor(state, generation)) {
                if (state & refs_mask == refs_mask) Env.fatal("too many calls on one descriptor", .{});
                state = d.state.cmpxchgWeak(state, (state + one_ref) | with, .acquire, .monotonic) orelse
                    return true;
            }
            return false;
        }

        /// A call ends. True for the last one after a close: `takeCloser` then gives whom to wake.
        pub inline fn decref(d: *Self) bool {
            // Release: what the call did comes before the close of the file.
            const before = d.state.fetchSub(one_ref, .acq_rel);
            if (planted == .drain_skipped) return false;
            return before & (closed_bit | refs_mask) == closed_bit | one_ref;
        }

        pub fn takeCloser(d: *Self) *Wait {
            d.lock.lock();
            defer d.lock.unlock();
            const w = d.closer.?;
            d.closer = null;
            return w;
        }

        /// Null if it is closed already, or of another generation. Otherwise no call begins any
        /// more, and who waits comes back, to be woken. The caller is inside until it has called
        /// `drain`.
        pub fn close(d: *Self, generation: Generation) ?[2]?*Wait {
            if (!d.enter(generation, closed_bit)) return null;
            // Whoever begins to wait with the lock after this sees that it is closed.
            d.lock.lock();
            defer d.lock.unlock();
            var woken: [2]?*Wait = .{ null, null };
            for ([_]*Side{ &d.read, &d.write }, &woken) |side, *out| {
                const w = side.waiter orelse continue;
                side.waiter = null;
                if (planted != .close_wakes_nobody and w.claim(.closed)) out.* = w;
            }
            return woken;
        }

        /// After `close`: done if no call is left inside; otherwise `w` waits until the last one is
        /// out, and the lock is held.
        pub fn drain(d: *Self, w: *Wait) enum { done, waiting } {
            d.lock.lock();
            d.closer = w;
            const others = d.state.fetchSub(one_ref, .acq_rel) & refs_mask != one_ref;
            if (others and planted != .drain_skipped) return .waiting;
            d.closer = null;
            d.lock.unlock();
            return .done;
        }

        /// After `drain`: handles of this generation stay closed, and the descriptor may be used
        /// again. False after the last generation: it must not.
        pub fn recycle(d: *Self) bool {
            Env.writes(&d.fd);
            d.fd = .none;
            const next = if (planted == .generation_kept) d.present() else d.present() +| 1;
            d.state.store(@as(u64, next) << generation_shift | closed_bit, .release);
            return next != last_generation;
        }

        /// By who is inside: queues `w` and returns `waiting` with the lock held, or says why there
        /// is nothing to wait for.
        pub fn begin(d: *Self, side: *Side, w: *Wait) Begin {
            d.lock.lock();
            const closed = planted != .close_unseen_by_waiter and d.isClosed();
            if (!closed and !side.ready and side.waiter == null) {
                side.waiter = w;
                return .waiting;
            }
            defer d.lock.unlock();
            if (closed) return .closed;
            if (side.waiter != null) return .busy;
            side.ready = false;
            return .ready;
        }

        fn isClosed(d: *const Self) bool {
            return d.state.load(.monotonic) & closed_bit != 0;
        }

        /// After a wait that was not served.
        pub fn withdraw(d: *Self, side: *Side, w: *Wait) void {
            d.lock.lock();
            defer d.lock.unlock();
            if (side.waiter == w) side.waiter = null;
        }

        /// An edge of the file of this generation. Who is to be woken comes back.
        pub fn edge(d: *Self, generation: Generation, read: bool, write: bool) [2]?*Wait {
            d.lock.lock();
            defer d.lock.unlock();
            // A close waits for the lock, so that what is open here stays so until it is let go.
            const stale = !isFor(d.state.load(.monotonic), generation) and planted != .stale_edge;
            if (stale) return .{ null, null };
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
    };
}
