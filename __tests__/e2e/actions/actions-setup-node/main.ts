console.log(`Node ${process.version} is here already.`);
