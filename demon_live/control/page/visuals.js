// The page of the visuals: the sketch gets the inputs of each frame of the screen. A sketch that
// fails is told of in a line, and the page waits for another.
import { inputs } from "/inputs.js";
import { connect, cycleAt, moment, token } from "/moment.js";

const canvas = document.getElementById("visuals");

function complain(error) {
  const line = document.getElementById("wrong");
  line.hidden = false;
  line.textContent = `the sketch: ${error?.message || error}`;
}

async function begin() {
  connect();
  const sketch = await import(`/sketch.js?t=${encodeURIComponent(token)}`);
  const draw = await sketch.default(canvas);
  const turn = (now) => {
    try {
      draw(inputs({ ...moment, cycle: cycleAt(now) }, now));
      requestAnimationFrame(turn);
    } catch (error) {
      complain(error);
    }
  };
  requestAnimationFrame(turn);
}
begin().catch(complain);
