// Work that waits until the page has nothing else to do, in short slices; what is new calls off what was left.

const SLICE_MS = 4; // so that a move of the pointer in the middle of it is not kept waiting
const MS_LEFT = 1; // of an idle time, to begin another step
const MAX_MS = 1000; // until the next step is done, idle or not
/** @typedef {{ timeRemaining(): number }} Idle */

/** @param {(idle: Idle) => void} work */
export const whenIdle = (work) =>
  window.requestIdleCallback
    ? window.requestIdleCallback(work, { timeout: MAX_MS })
    : setTimeout(work, 16, { timeRemaining: () => 0 });

/** @param {number} handle */
const callOff = (handle) => (window.cancelIdleCallback ? window.cancelIdleCallback(handle) : clearTimeout(handle));

/** Steps of a work in a circle: begun anew it goes on where it was, so that none is left out while the pointer moves. */
export class IdleSteps {
  /**
   * @param {(step: number) => void} work
   * @param {(busy: boolean) => void} tell
   */
  constructor(work, tell = () => undefined) {
    this.work = work;
    this.tell = tell;
    this.handle = 0;
    this.count = 0;
    this.next = 0;
    this.left = 0;
  }

  /**
   * Do all steps, of which there are so many; those that were still to be done are called off.
   * @param {number} count
   */
  begin(count) {
    if (this.count !== count) this.next = 0;
    [this.count, this.left] = [count, count];
    this.tell(count > 0);
    this.await();
  }

  await() {
    callOff(this.handle);
    this.handle = this.left ? whenIdle((idle) => this.slice(idle)) : 0;
  }

  /** @param {Idle} idle */
  slice(idle) {
    const began = performance.now();
    do {
      this.work(this.next);
      this.next = (this.next + 1) % this.count;
      this.left -= 1;
    } while (this.left > 0 && idle.timeRemaining() > MS_LEFT && performance.now() - began < SLICE_MS);
    if (this.left) this.await();
    else this.tell(false);
  }
}
