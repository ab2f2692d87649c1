//! One descriptor: its file, how many callers are inside a call on it, its close, and of each
//! direction whether an attempt may succeed and which callers wait for that. Every lane has these.
//!
//! A descriptor is used again for other files, so `state` says which one it is for and how long: a
//! generation, whether that is closed, and the calls inside. A call begins with `incref`, one
//! compare-and-swap that fails for another generation and after the close, and ends with `decref`.
//! So until the last call is out, which `close` and `drain` wait for, `fd` is the handle of this
//! file and of no other, and the descriptor is not used again. Go's internal/poll fdMutex does the
//! same. Where a lock of the whole lane is held from the look at the handle to the end of the
//! attempt, as the interpreter's is in the serial lane, a call need not be counted.
//!
//! A descriptor is watched once, by edges. An edge marks its direction as ready, or wakes those
//! that wait. One goroutine at a time has the mark: it takes the mark, or is woken with it, tries,
//! and puts it back if there may be more (`settle`), which wakes the next. An attempt in vain
//! leaves the mark taken, and an edge since has set it again. So the mark has to be taken *before*
//! the attempt: to take it after would lose the edge of what came in between.
//!
//! Spurious wake-ups are allowed, a lost one is not. A goroutine that waits has tried with the mark
//! taken, and was refused. An edge after that attempt finds either the mark unset or the goroutine
//! queued, both under `lock`. Likewise a close finds it queued, or it finds the close.
//!
//! `Rt` is what a lane gives: `Env`, the environment of what is atomic; `Lock`, the lock of one
//! descriptor, which is `Unlocked` where a lock of the whole lane is held anyway; `Wait`, what is
//! queued, and `claim(waiter, how)`, true for the first that ends its wait; `Owner`, what the lane
//! keeps of the file; `settles`, whether its goroutines settle their attempts, so that several may
//! wait for one direction; otherwise a second one is refused; and `starts_ready`, whether the first
//! attempt on a new file comes with the mark, or without.
const os = @import("../os/os.zig");
const list = @import("../core/list.zig");
const Ready = @import("netpoll.zig").Ready;

pub const Begin = enum { ready, closed, busy, waiting };
/// How a wait ends.
pub const How = enum { ready, closed };

/// The calls that can be inside at once; more than there are threads.
pub const refs_bits = 20;
/// A tag has a descriptor's index where its state has the calls (poller.zig).
pub const generation_shift = refs_bits + 1;
pub const Generation = u43;

/// No file gets this one.
pub const last_generation = @import("std").math.maxInt(Generation);

const one_ref: u64 = 1;
const refs_mask: u64 = (1 << refs_bits) - 1;
const closed_bit: u64 = 1 << refs_bits;

/// For lanes whose callers hold a lock of the whole lane.
pub const Unlocked = struct {
    pub inline fn lock(_: *Unlocked) void {}
    pub inline fn unlock(_: *Unlocked) void {}
};

pub fn Desc(comptime Rt: type) type {
    return struct {
        const Self = @This();
        const Env = Rt.Env;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        /// On the stack of the caller that waits.
        pub const Waiter = struct {
            wait: *Rt.Wait,
            /// It is woken with the mark, tries, and settles what it leaves over. Otherwise it only
            /// wants to know.
            tries: bool = true,
            prev: ?*Waiter = null,
            next: ?*Waiter = null,
        };

        /// The waiters to wake, first come first. The caller wakes them once it has let the lock
        /// go. None touches its waiter before it is woken.
        pub const Woken = struct {
            head: ?*Waiter = null,

            pub inline fn pop(w: *Woken) ?*Waiter {
                const first = w.head orelse return null;
                w.head = first.next;
                return first;
            }
        };

        /// Makes a list of those that are woken.
        const Waking = struct {
            head: ?*Waiter = null,
            last: ?*Waiter = null,

            inline fn add(w: *Waking, waiter: *Waiter) void {
                if (w.last) |last| last.next = waiter else w.head = waiter;
                w.last = waiter;
            }

            inline fn all(w: *const Waking) Woken {
                return .{ .head = w.head };
            }
        };

        pub const Side = struct {
            /// The mark: an attempt may succeed, and no caller is trying.
            ready: bool = Rt.starts_ready,
            /// As far as is known it will never block again: no edge will come.
            sticky: bool = false,
            /// Those that have waited longest come first.
            waiters: list.List(Waiter) = .{},
        };

        /// Generation, closed, calls inside. Only `recycle` changes the generation.
        state: Env.Atomic(u64) = .init(closed_bit),
        lock: Rt.Lock = .{},
        /// A read may give less than there is, though it asked for more.
        stops_short: bool = false,
        /// It is watched in both directions until its close, whether a caller waits or not.
        steady: bool = false,
        index: u32 = 0,
        /// From `open` to `recycle`. A call inside may read it.
        fd: os.Handle = .none,
        read: Side = .{},
        write: Side = .{},
        owner: Rt.Owner = undefined,
        /// The caller that has closed it and waits for the calls inside.
        closer: ?*Rt.Wait = null,
        next_free: ?*Self = null,

        /// Of one that is not in use. Returns its generation.
        pub fn open(d: *Self, fd: os.Handle) Generation {
            d.lock.lock();
            defer d.lock.unlock();
            Env.writes(&d.fd);
            d.fd = fd;
            d.stops_short = false;
            d.steady = false;
            d.read = .{};
            d.write = .{};
            const generation = d.present();
            // Release pairs with the acquire in `incref`.
            d.state.store(@as(u64, generation) << generation_shift, .release);
            return generation;
        }

        pub inline fn present(d: *const Self) Generation {
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
                if (state & refs_mask == refs_mask)
                    Env.fatal("too many calls on one descriptor", .{});
                const entered = (state + one_ref) | with;
                state = d.state.cmpxchgWeak(state, entered, .acquire, .monotonic) orelse
                    return true;
            }
            return false;
        }

        /// A call ends. True for the last one after a close: `takeCloser` then gives the caller to
        /// wake.
        pub inline fn decref(d: *Self) bool {
            // Release: what the call did comes before the close of the file.
            const before = d.state.fetchSub(one_ref, .acq_rel);
            if (planted == .drain_skipped) return false;
            return before & (closed_bit | refs_mask) == closed_bit | one_ref;
        }

        pub fn takeCloser(d: *Self) *Rt.Wait {
            d.lock.lock();
            defer d.lock.unlock();
            const w = d.closer.?;
            d.closer = null;
            return w;
        }

        /// Null if it is closed already, or of another generation. Otherwise no call begins any
        /// more, and the waiters are returned: the caller wakes them. The caller is inside until it
        /// has called `drain` or `decref`.
        pub fn close(d: *Self, generation: Generation) ?Woken {
            if (!d.enter(generation, closed_bit)) return null;
            // A caller that begins to wait with the lock after this sees that it is closed.
            d.lock.lock();
            defer d.lock.unlock();
            var waking: Waking = .{};
            for ([_]*Side{ &d.read, &d.write }) |side| {
                while (side.waiters.pop()) |w| {
                    if (planted != .close_wakes_nobody and Rt.claim(w, .closed)) waking.add(w);
                    if (planted == .close_wakes_one) break;
                }
            }
            return waking.all();
        }

        /// After `close`: done if no call is left inside; otherwise `w` waits until the last one is
        /// out, and the lock is held.
        pub fn drain(d: *Self, w: *Rt.Wait) enum { done, waiting } {
            d.lock.lock();
            d.closer = w;
            const others = d.state.fetchSub(one_ref, .acq_rel) & refs_mask != one_ref;
            if (others and planted != .drain_skipped) return .waiting;
            d.closer = null;
            d.lock.unlock();
            return .done;
        }

        /// After the close, when no call is inside: handles of this generation stay closed, and the
        /// descriptor may be used again. False after the last generation: it must not.
        pub fn recycle(d: *Self) bool {
            Env.writes(&d.fd);
            d.fd = .none;
            const next = if (planted == .generation_kept) d.present() else d.present() +| 1;
            d.state.store(@as(u64, next) << generation_shift | closed_bit, .release);
            return next != last_generation;
        }

        /// Before an attempt: takes the mark. False if another has it, or the attempt would be in
        /// vain.
        pub inline fn take(d: *Self, side: *Side) bool {
            d.lock.lock();
            defer d.lock.unlock();
            const ready = side.ready;
            if (planted != .mark_not_taken) side.ready = false;
            return ready;
        }

        /// After an attempt with the mark, or a wait that was woken with it: `more` if the next
        /// attempt may succeed too. Returns the waiters to wake.
        pub inline fn settle(d: *Self, side: *Side, more: bool) Woken {
            d.lock.lock();
            defer d.lock.unlock();
            var waking: Waking = .{};
            if (more or side.sticky) {
                side.ready = true;
                if (planted != .not_passed_on) wake(side, &waking);
            }
            return waking.all();
        }

        /// After an attempt with the mark that was refused. The system knows better than an edge: a
        /// socket that was watched before it was connected has told of a hang-up, and another
        /// caller may have taken the error.
        pub inline fn refused(d: *Self, side: *Side) void {
            d.lock.lock();
            defer d.lock.unlock();
            side.sticky = false;
            if (planted == .mark_not_taken) side.ready = false;
        }

        /// For a caller that is inside: queues `w` and returns `waiting` with the lock held, or
        /// says why there is nothing to wait for. `ready` gives the mark.
        pub fn begin(d: *Self, side: *Side, w: *Waiter) Begin {
            d.lock.lock();
            const closed = planted != .close_unseen_by_waiter and d.isClosed();
            const busy = !Rt.settles and side.waiters.head != null;
            if (!closed and !side.ready and !busy) {
                side.waiters.push(w);
                return .waiting;
            }
            defer d.lock.unlock();
            if (closed) return .closed;
            if (busy) return .busy;
            side.ready = Rt.settles and !w.tries;
            return .ready;
        }

        fn isClosed(d: *const Self) bool {
            return d.state.load(.monotonic) & closed_bit != 0;
        }

        /// After a wait that was not served.
        pub fn withdraw(d: *Self, side: *Side, w: *Waiter) void {
            d.lock.lock();
            defer d.lock.unlock();
            side.waiters.remove(w);
        }

        /// An edge of the file of this generation. Returns the waiters to wake.
        pub inline fn edge(d: *Self, generation: Generation, e: Ready) Woken {
            d.lock.lock();
            defer d.lock.unlock();
            // A close waits for the lock, so that what is open here stays so until it is let go.
            const stale = !isFor(d.state.load(.monotonic) & ~refs_mask, generation);
            if (stale and planted != .stale_edge) return .{};
            if (Rt.settles) {
                if (e.hangup or e.eof) d.read.sticky = true;
                if (e.hangup) d.write.sticky = true;
                if (e.urgent) d.stops_short = true;
            }
            var waking: Waking = .{};
            if (e.read) mark(&d.read, &waking);
            if (e.write) mark(&d.write, &waking);
            return waking.all();
        }

        inline fn mark(side: *Side, waking: *Waking) void {
            if (planted != .edge_forgotten) side.ready = true;
            wake(side, waking);
        }

        /// One that tries, which gets the mark, and those before it that only want to know. To wake
        /// all would have thousands try in vain for each packet.
        inline fn wake(side: *Side, waking: *Waking) void {
            while (side.waiters.pop()) |w| {
                // Its time is up, or it was interrupted: it goes on by itself.
                if (!Rt.claim(w, .ready)) continue;
                waking.add(w);
                if (Rt.settles and !w.tries) continue;
                side.ready = false;
                return;
            }
        }
    };
}
