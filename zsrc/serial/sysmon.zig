//! sysmon: a thread without a P that watches the lane.
//!
//! Its three duties, as in Go's runtime: see that the network and the timers are looked at, take
//! the P from an M with a goroutine that blocks (retake), and have a goroutine that runs too long
//! preempted. It never takes the host's lock; what needs it is done by an M that it sends. It
//! sleeps 20 us between rounds while something happens, then twice as long each round up to 10 ms
//! but never past the end of a slice. While no M has the P it is woken by the one that takes it; by
//! itself it looks for goroutines only that have lost the P and compute.
//!
//! A server is idle and busy thousands of times a second, which must not keep sysmon awake: when it
//! was woken its sleeps grow from the first round on that finds nothing to do. So they do while
//! retakes wait, since others have just used the host's lock.
const std = @import("std");
const os = @import("../os/os.zig");
const m_mod = @import("m.zig");
const Real = @import("../os/env.zig").Real;
const M = m_mod.M;
const Lock = @import("lock.zig").Lock;

pub const State = struct {
    thread: ?os.Thread = null,
    note: os.Note = .{},
    stopping: std.atomic.Value(bool) = .init(false),
    /// Held while sysmon looks, and by the M that puts the lane to rest: resting.zig.
    round: Lock = .{},
    /// There is nothing to look at. Under `round`.
    resting: bool = false,
    /// sysmon sleeps until an M takes the P: see `own`.
    waiting: std.atomic.Value(bool) = .init(false),
    /// An M is on its way to retake or preempt: not another one until it is done.
    helpers: std.atomic.Value(u32) = .init(0),

    // What the last rounds saw; sysmon's own.
    /// There was no M to send.
    refused: bool = false,
    tick: u64 = 0,
    tick_since: u64 = 0,
    detached_since: u64 = 0,
    /// When another thread had the host's lock, one of our helpers or a stranger.
    lock_busy_at: u64 = 0,
    /// A goroutine that has lost the P computes, and others want the P.
    hurries: bool = false,
    requested_at: u64 = 0,
    requests: u32 = 0,
    retake_at: u64 = 0,
    handed_off: bool = false,
    /// Grows while retakes are in vain, so that waiting for a busy interpreter is not mistaken
    /// for blocking over and over.
    backoff_ns: u64 = 0,
    vain_seen: u64 = 0,
};

/// Running this often means that a lost goroutine computes rather than passes by.
const lost_rounds = 2;
/// Where nobody waits for the P and nobody runs on it, it may pass by for this long.
const unhurried_ns = std.time.ns_per_ms;
/// A thread that is given the host's lock needs up to this long to wake up on a busy machine.
const wake_up_ns = std.time.ns_per_ms;
const hog_share = 10;
/// One a slice: a request may be lost, when the goroutine returns from the code it was put into.
const requests_before_hand_off = 3;
/// A program that has just blocked will again: it is watched closely for a while.
const recent_retake_ns = 100 * std.time.ns_per_ms;
const recent_retake_sleep_ns = 200 * std.time.ns_per_us;
const backoff_start_ns = 50 * std.time.ns_per_us;

pub fn start(lane: anytype) !void {
    const Lane = @TypeOf(lane);
    const T = struct {
        fn main(raw: ?*anyopaque) void {
            const of: Lane = @ptrCast(@alignCast(raw.?));
            os.preciseSleep();
            os.promptWake();
            const shortest = of.tunables.sysmon_sleep_min_ns.get();
            var rounds: Rounds(Lane) = .{ .lane = of, .delay = shortest };
            watch(of, &rounds);
        }
    };
    lane.sysmon.thread = try os.spawn(T.main, lane, .{ .signals = .blocked });
}

pub fn stop(lane: anytype) void {
    const s = &lane.sysmon;
    s.stopping.store(true, .release);
    s.note.wake();
    s.thread.?.join();
    s.thread = null;
}

/// Has it look soon, by what was changed: it may sleep by what was. With the host's lock.
pub fn lookAgain(lane: anytype) void {
    lane.sysmon.note.wake();
}

/// An M has the P from here on, which was free: sysmon has something to watch.
///
/// Dekker with `sleepWhileFree`: sysmon stores `waiting`, then loads `owner`; an M stores `owner`,
/// then loads `waiting`. All four are seq_cst: a weaker store may come after the load, and neither
/// sees the other. With the host's lock.
pub inline fn own(lane: anytype, m: anytype) void {
    const planted = plantedIn(@TypeOf(lane));
    lane.owner.store(m, if (planted == .owns_late) .release else .seq_cst);
    if (lane.sysmon.waiting.load(.seq_cst)) wake(&lane.sysmon);
}

noinline fn wake(s: anytype) void {
    if (s.waiting.swap(false, .seq_cst)) s.note.wake();
}

/// False if an M has taken the P.
fn sleepWhileFree(lane: anytype, timeout_ns: ?u64) bool {
    const planted = plantedIn(@TypeOf(lane));
    const s = &lane.sysmon;
    s.waiting.store(true, if (planted == .waits_late) .release else .seq_cst);
    // It need not look at `stopping` again: the thread that stores it wakes the note after that,
    // and nothing has cleared the note since that was false.
    const is_free = lane.owner.load(.seq_cst) == null or planted == .sleeps_blindly;
    if (is_free) _ = s.note.sleep(timeout_ns);
    return s.waiting.swap(false, .seq_cst) and is_free;
}

/// sysmon's life. `rounds` says how long to sleep between them, and looks.
pub fn watch(lane: anytype, rounds: anytype) void {
    const planted = plantedIn(@TypeOf(lane));
    const s = &lane.sysmon;
    while (true) {
        const is_free = lane.owner.load(.acquire) == null and !rests(lane);
        const sleep_ns: ?u64 = if (is_free and !anyLost(lane)) null else rounds.sleepFor();
        if (planted == .clears_late) s.note.clear();
        const stays = if (is_free) sleepWhileFree(lane, sleep_ns) else sleep: {
            _ = s.note.sleep(sleep_ns);
            break :sleep true;
        };
        const early = planted == .stops_unseen and s.stopping.load(.acquire);
        // Before it finds out again for how long to sleep: the thread that wakes it has changed
        // that.
        if (planted != .clears_late) s.note.clear();
        // Not sooner: what was cleared may have been `stop`.
        if (early or (planted != .stops_unseen and s.stopping.load(.acquire))) return;
        rounds.slept();
        if (!stays) {
            rounds.woken();
            continue;
        }
        s.round.lock();
        defer s.round.unlock();
        EnvOf(@TypeOf(lane)).reads(&s.resting);
        if (s.resting and planted != .looks_at_rest) continue;
        rounds.look();
    }
}

fn Rounds(comptime Lane: type) type {
    return struct {
        lane: Lane,
        /// So many in a row have found nothing.
        idle: u32 = 0,
        /// The sleeps grow from the first of these on: there was nothing to do since it was woken.
        grows: bool = false,
        delay: u64,
        began: u64 = 0,
        /// No M had the P.
        free: bool = false,
        /// So many looks in a row came while retakes wait, as others had just used the host's lock.
        patience: u6 = 0,

        const Self = @This();

        pub fn sleepFor(r: *Self) u64 {
            const s = &r.lane.sysmon;
            const was_free = r.free;
            r.free = r.lane.owner.load(.monotonic) == null;
            if (was_free and !r.free) r.woken();
            const t = r.lane.tunables;
            const shortest = t.sysmon_sleep_min_ns.get();
            const longest = t.sysmon_sleep_max_ns.get();
            if (r.idle == 0) {
                r.delay = shortest;
            } else if (r.grows or r.idle > t.sysmon_idle_rounds.get()) {
                r.delay *= 2;
            }
            // Where runs are short and many it stays out of their way.
            r.delay = if (r.lane.options.keep) longest else @min(r.delay, longest);
            const now = os.nanotime();
            r.began = if (r.lane.ring.wants(.sysmon_tick)) now else 0;
            if (r.free) return r.delay;
            if (now -| s.retake_at < recent_retake_ns)
                r.delay = @min(r.delay, recent_retake_sleep_ns);
            if (isHog(r.lane, s.tick))
                r.delay = @min(r.delay, t.preempt_slice_ns.get() / hog_share);
            const due = @min(untilSliceEnd(r.lane, now), untilOffer(r.lane, now));
            return @max(shortest, @min(@max(r.delay, r.patientDelay(now)), due));
        }

        /// While retakes wait: twice as long each time, but never past the end of that.
        fn patientDelay(r: *const Self, now: u64) u64 {
            const t = r.lane.tunables;
            if (r.patience == 0) return 0;
            const delay = t.sysmon_sleep_min_ns.get() <<| r.patience;
            const end = r.lane.sysmon.lock_busy_at +| wake_up_ns;
            return @min(delay, end -| now, t.sysmon_sleep_max_ns.get());
        }

        pub fn slept(r: *Self) void {
            if (r.began != 0) r.lane.recordTick(os.nanotime() - r.began, r.idle);
        }

        /// The lane, which was idle, has something to do. That may be over in microseconds, again
        /// and again.
        pub fn woken(r: *Self) void {
            r.idle = 0;
            r.grows = true;
        }

        pub fn look(r: *Self) void {
            const now = os.nanotime();
            const busy = round(r.lane, now);
            r.idle = if (busy) 0 else r.idle +| 1;
            const s = &r.lane.sysmon;
            r.patience = if (lockIsBusy(s, now) and !s.hurries) r.patience +| 1 else 0;
            // What was just seen to be away is looked at again soon, and mostly is back by then.
            r.grows = r.free or (r.grows and (!busy or s.detached_since == now));
        }
    };
}

/// At rest the lane is not watched, but sysmon looks again by itself: see resting.zig.
fn rests(lane: anytype) bool {
    const s = &lane.sysmon;
    s.round.lock();
    defer s.round.unlock();
    EnvOf(@TypeOf(lane)).reads(&s.resting);
    return s.resting;
}

/// With `round`.
pub fn setResting(lane: anytype, resting: bool) void {
    const s = &lane.sysmon;
    EnvOf(@TypeOf(lane)).writes(&s.resting);
    s.resting = resting;
}

/// What the lane has of the machine, if that is a model's.
fn EnvOf(comptime Pointer: type) type {
    const Lane = @typeInfo(Pointer).pointer.child;
    return if (@hasDecl(Lane, "Env")) Lane.Env else Real;
}

fn plantedIn(comptime Pointer: type) @EnumLiteral() {
    const Env = EnvOf(Pointer);
    return if (@hasDecl(Env, "planted")) Env.planted else .none;
}

/// How long the goroutine that has the P has run without a wait, as far as sysmon has seen; 0 if
/// it has not seen it yet. With the lane's lock.
pub fn hasRun(lane: anytype, now: u64) u64 {
    const s = &lane.sysmon;
    if (@atomicLoad(u64, &s.tick, .acquire) != lane.tick.raw) return 0;
    return now -| @atomicLoad(u64, &s.tick_since, .monotonic);
}

/// A slice may be far shorter than the longest sleep. Where one has ended and the goroutine was not
/// asked, as it blocks, there is no hurry.
pub fn untilSliceEnd(lane: anytype, now: u64) u64 {
    const s = &lane.sysmon;
    if (!lane.options.preempt_async) return std.math.maxInt(u64);
    const end = lane.tunables.preempt_slice_ns.get() +
        if (s.requests > 0) s.requested_at else s.tick_since -| lane.preemptLead();
    return if (end > now) end - now else std.math.maxInt(u64);
}

/// How long until the lane should offer the host's lock to others. Once the lane was asked, the
/// next look is when the next offer could be due.
fn untilOffer(lane: anytype, now: u64) u64 {
    if (lane.lock_wanted.load(.monotonic)) return lane.offerInterval();
    return lane.offered_at.load(.monotonic) +| lane.offerInterval() -| now;
}

fn anyLost(lane: anytype) bool {
    lane.m_lock.lock();
    defer lane.m_lock.unlock();
    var it = lane.all_m;
    while (it) |m| : (it = m.next_all) {
        if (m.lost.load(.monotonic)) return true;
    }
    return false;
}

/// One look at the lane. True if something happened, so that the next look comes soon.
pub fn round(lane: anytype, now: u64) bool {
    lane.clock.store(now, .monotonic);
    const busy = watchOwner(lane, now);
    lane.watchDebt(now, lane.sysmon.refused);
    lane.sysmon.refused = false;
    lane.sysmon.hurries = watchLost(lane, now);
    return lane.sysmon.hurries or busy;
}

fn watchOwner(lane: anytype, now: u64) bool {
    const s = &lane.sysmon;
    const o = &lane.options;
    const m = lane.owner.load(.acquire) orelse return false;
    if (untilOffer(lane, now) == 0) lane.askForLock();
    const tick = lane.tick.load(.monotonic);
    if (tick != s.tick) {
        // In this order: see hasRun.
        @atomicStore(u64, &s.tick_since, turnBegan(lane, tick, now), .monotonic);
        @atomicStore(u64, &s.tick, tick, .release);
        s.detached_since = 0;
        s.requests = 0;
        s.handed_off = false;
        if (lane.timers.earliest.load(.monotonic) <= now or lane.hogsWait() or
            now -| lane.last_poll.load(.monotonic) >= lane.tunables.netpoll_interval_ns.get())
            lane.askAttention();
        // Calls may block for less than our sleep, one after the other: what is away now is looked
        // at again soon.
        if (o.retake_enabled and lane.attachment(m) == .detached) {
            s.detached_since = now;
            return true;
        }
        // What began just now has a whole slice; that of a hog may be over already.
        if (s.tick_since == now) return false;
    }
    const attachment = lane.attachment(m);
    if (attachment == .unsure or s.helpers.load(.acquire) != 0) s.lock_busy_at = now;
    if (attachment != .attached) return o.retake_enabled and watchBlocked(lane, m, now);
    s.detached_since = 0;
    if (!o.preempt_async or now - s.tick_since + lane.preemptLead() < slice(lane, tick, now))
        return false;
    lane.askAttention();
    if (s.requests > 0 and now - s.requested_at < lane.tunables.preempt_slice_ns.get())
        return false;
    s.requested_at = now;
    s.requests += 1;
    const about: m_mod.About = .{ .m = m.id, .tick = tick, .since = s.tick_since };
    if (s.requests <= requests_before_hand_off) {
        _ = lane.counters.preempt_requests.fetchAdd(1, .monotonic);
        requestPreempt(lane, m, about);
    } else if (!s.handed_off) {
        // The requests found no place to stop at. Ask for the lock and take the P along, which
        // works where the goroutine gives the lock up without running bytecode.
        s.handed_off = send(lane, .hand_off, about);
    }
    return true;
}

/// How long the goroutine may run. One that was preempted before, and runs because nothing else
/// could, gives way sooner when something else can.
fn slice(lane: anytype, tick: u64, now: u64) u64 {
    const whole = lane.tunables.preempt_slice_ns.get();
    return if (isHog(lane, tick) and othersWait(lane, now)) whole / hog_share else whole;
}

/// When the turn began, if that is known, or `now`: it may also have begun since.
fn turnBegan(lane: anytype, tick: u64, now: u64) u64 {
    if (lane.hog_turn.load(.acquire) != tick) return now;
    return @min(now, lane.hog_turn_at.load(.monotonic));
}

fn isHog(lane: anytype, tick: u64) bool {
    return lane.hog_tick.load(.monotonic) == tick;
}

fn othersWait(lane: anytype, now: u64) bool {
    return lane.othersRunnable() or lane.timers.earliest.load(.monotonic) <= now or
        lane.networkPending();
}

/// Others used the host's lock a moment ago: the goroutine may be about to get it back.
fn lockIsBusy(s: anytype, now: u64) bool {
    return now -| s.lock_busy_at < wake_up_ns;
}

fn watchBlocked(lane: anytype, m: *M, now: u64) bool {
    const s = &lane.sysmon;
    if (s.detached_since == 0) {
        s.detached_since = now;
        return true;
    }
    const others = othersWait(lane, now) or lane.hogsWait();
    const waits = lockIsBusy(s, now);
    const short = lane.tunables.retake_threshold_ns.get();
    const long = lane.tunables.retake_threshold_idle_ns.get();
    const threshold = if (others and !waits) short else long;
    if (now - s.detached_since >= short) {
        lane.blocked_since.store(s.detached_since, .monotonic);
        lane.blocked_tick.store(s.tick, .release);
    }
    if (now - s.detached_since < @max(threshold, s.backoff_ns)) return others;
    return send(lane, .retake, .{ .m = m.id, .tick = s.tick, .since = s.detached_since });
}

/// The goroutine that a retake is about may have come back while the M was woken.
pub fn stillBlocked(lane: anytype, m: anytype) bool {
    const owner = lane.owner.load(.acquire) orelse return false;
    return lane.tick.load(.monotonic) == m.about.tick and lane.attachment(owner) != .attached;
}

/// Goroutines that came back from a blocking call and compute without a P: they are asked to queue
/// up like all others. True if that hurries. Where it does not, most of them soon block again, as
/// threads would.
pub fn watchLost(lane: anytype, now: u64) bool {
    var hurries: ?bool = null;
    var lost: ?*M = null;
    lane.m_lock.lock();
    var it = lane.all_m;
    while (it) |m| : (it = m.next_all) {
        if (!m.lost.load(.monotonic) or lane.attachment(m) != .attached) {
            m.seen_attached = 0;
            continue;
        }
        const hurry = hurries orelse othersWantP(lane, now);
        hurries = hurry;
        if (m.seen_attached == 0) {
            m.seen_since = now;
        } else if (!hurry and now -| m.seen_since < unhurried_ns) continue;
        m.seen_attached += 1;
        if (m.seen_attached % 64 == lost_rounds) lost = m;
    }
    lane.m_lock.unlock();
    if (lost) |m| requestPreempt(lane, m, .{ .m = m.id });
    return hurries orelse false;
}

/// Whether a goroutine runs on the P, or could run.
fn othersWantP(lane: anytype, now: u64) bool {
    const m = lane.owner.load(.acquire) orelse return false;
    return lane.attachment(m) == .attached or othersWait(lane, now) or lane.hogsWait();
}

fn requestPreempt(lane: anytype, m: *M, about: m_mod.About) void {
    if (!lane.requestPreempt(m)) _ = send(lane, .preempt, about);
}

fn send(lane: anytype, duty: m_mod.Duty, about: m_mod.About) bool {
    const s = &lane.sysmon;
    if (s.helpers.swap(1, .acq_rel) != 0) return false;
    if (duty == .retake) {
        s.retake_at = os.nanotime();
        const vain = @atomicLoad(u64, &lane.counters.retakes_in_vain, .monotonic);
        s.backoff_ns = if (vain == s.vain_seen) 0 else @min(
            @max(s.backoff_ns * 2, backoff_start_ns),
            lane.tunables.sysmon_sleep_max_ns.get(),
        );
        s.vain_seen = vain;
    }
    lane.startM(duty, about) catch {
        s.refused = duty == .retake;
        s.helpers.store(0, .release);
        return false;
    };
    return true;
}
